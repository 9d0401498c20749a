"""The baseline of a repository's tests, measured once for each state of it and kept."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from regrade.datasets.caches import full_disk
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Limits, TestSuite, Tree
from regrade.evaluators.execution import environments
from regrade.evaluators.sandboxes import Sandbox
from regrade.evaluators.scoring.code_version import code_version
from regrade.evaluators.storage import serialisation
from regrade.evaluators.storage.digests import key_of, sealed, unsealed
from regrade.evaluators.task_curation.baseline import Baseline, UnusableOptionsError, baseline

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How a repository's tests are measured."""

    requirements: tuple[str, ...]
    """See `Task.requirements`."""
    python: Path
    """The interpreter that these come to."""
    sandbox: Sandbox
    runs: int
    """How often they run; what passes every time is relied on."""
    time_limit: float
    """Seconds for one run."""
    cache: Path

    def of(
        self, tree: Tree, suite: TestSuite, progress: Callable[[int, int], None] | None
    ) -> tuple[TestSuite, Baseline]:
        """The baseline, from the cache or by running it, with the suite's options as far as pytest knows them.

        Raises:
            UserError: the tests can't be run, or there are none; says which repository's.
        """
        without_options = replace(suite, options=(*suite.options, "-o", "addopts="))
        try:
            return suite, self._kept_or_new(tree, suite, progress)
        except UnusableOptionsError:
            return without_options, self._kept_or_new(tree, without_options, progress)

    def _kept_or_new(self, tree: Tree, suite: TestSuite, progress: Callable[[int, int], None] | None) -> Baseline:
        path = self.cache / "baselines" / f"{self._key(tree, suite)}.json"
        found = _kept(path)
        logger.debug("baseline cache %s: %s, %s", "miss" if found is None else "hit", tree.root, path)
        if found is None:
            found = self._new(tree, suite, progress)
            _keep(path, found)
        return found

    def _key(self, tree: Tree, suite: TestSuite) -> str:
        identity = environments.identity(self.python) + environments.runner_identity(
            suite.runner, environments.installed_packages(suite, tree.root)
        )
        parts = [tree.digest, repr(suite), identity, code_version(), self.sandbox.name, str(self.runs)]
        return key_of(parts).hex()

    def _new(self, tree: Tree, suite: TestSuite, progress: Callable[[int, int], None] | None) -> Baseline:
        try:
            return baseline(
                tree,
                suite,
                self.requirements,
                Limits(wall_seconds=self.time_limit),
                runs=self.runs,
                sandbox=self.sandbox,
                cache=self.cache,
                progress=progress,
            )
        except UnusableOptionsError:
            raise
        except UserError as error:
            raise UserError(f"{tree.root}: {error}") from error


def _keep(path: Path, found: Baseline) -> None:
    making = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        making.write_text(sealed(serialisation.encode(found)), "utf-8")
        making.replace(path)
    except OSError as error:  # it took minutes to find out, and is good for this time
        with contextlib.suppress(OSError):
            making.unlink(missing_ok=True)
        why = f"what was measured of the repository's tests can't be kept, and is measured again next time ({error})"
        warnings.warn("; ".join(filter(None, (why, full_disk(error)))), stacklevel=2)


def _kept(path: Path) -> Baseline | None:
    """What was found out earlier; None where it is missing, or not as it was written."""
    try:
        return serialisation.decode_plain(Baseline, unsealed(path.read_text("utf-8")))  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, TypeError):
        return None
