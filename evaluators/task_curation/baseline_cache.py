"""Cache of baselines: the tests of a repository are measured once for each of its states."""

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
from regrade.evaluators.execution.image_environments import ImageEnvironments
from regrade.evaluators.execution.packages import installed_packages, runner_identity
from regrade.evaluators.execution.warm_start import bytecode_folder
from regrade.evaluators.sandboxes import Sandbox
from regrade.evaluators.scoring.code_version import code_version
from regrade.evaluators.storage import serialisation
from regrade.evaluators.storage.digests import key_of, sealed, unsealed
from regrade.evaluators.task_curation.baseline import baseline
from regrade.evaluators.task_curation.baseline_results import Baseline
from regrade.evaluators.task_curation.baseline_workers import UnusableOptionsError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BaselineCache:
    """Cached baselines, measured with these settings."""

    requirements: tuple[str, ...]
    """See `Task.requirements`."""
    python: Path
    """The interpreter of these requirements."""
    sandbox: Sandbox
    runs: int
    """Number of runs of the suite; a test is stable if it passes in all of them."""
    time_limit: float
    """Limit of one run, in seconds."""
    test_limit: float | None
    """See `Limits.test_seconds`."""
    cache: Path
    reach: bool = True
    """Is the reach of the tests measured?"""

    def get(
        self, tree: Tree, suite: TestSuite, progress: Callable[[int, int], None] | None
    ) -> tuple[TestSuite, Baseline]:
        """The cached or measured baseline, and its suite: without configured options if pytest does not know one.

        Raises:
            UserError: the tests can't be run, or there are none; the message names the repository.
        """
        # In this order: the second is stored only if pytest refused the first, in the same environment.
        suites = (suite, replace(suite, options=(*suite.options, "-o", "addopts=")))
        paths = [self.cache / "baselines" / f"{self._key(tree, each)}.json" for each in suites]
        for each, path in zip(suites, paths, strict=True):
            stored = _read(path)
            logger.debug("baseline cache %s: %s, %s", "miss" if stored is None else "hit", tree.root, path)
            if stored is not None:
                return each, stored
        try:
            used, path, measured = suite, paths[0], self._measure(tree, suite, progress)
        except UnusableOptionsError:
            used, path, measured = suites[1], paths[1], self._measure(tree, suites[1], progress)
        environments.forget_lookups()
        environments.look_ahead(self.python)
        _write(path, measured)
        return used, measured

    def _key(self, tree: Tree, suite: TestSuite) -> str:
        if suite.image is not None:
            identity = ImageEnvironments(self.cache).identity(suite.image)
        else:
            identity = environments.identity(self.python) + runner_identity(
                suite.runner, installed_packages(suite, tree.root, self.cache)
            )
        parts = [tree.digest, repr(suite), identity, code_version(), self.sandbox.name, str(self.runs)]
        parts.append(repr(self.test_limit) if self.reach else f"{self.test_limit!r}, no reach")
        return key_of(parts).hex()

    def _measure(self, tree: Tree, suite: TestSuite, progress: Callable[[int, int], None] | None) -> Baseline:
        try:
            return baseline(
                tree,
                suite,
                self.requirements,
                Limits(wall_seconds=self.time_limit, test_seconds=self.test_limit),
                runs=self.runs,
                reach=self.reach,
                sandbox=self.sandbox,
                cache=self.cache,
                progress=progress,
                preparations=self._preparations(suite),
            )
        except UnusableOptionsError:
            raise
        except UserError as error:
            raise UserError(f"{tree.root}: {error}") from error

    def _preparations(self, suite: TestSuite) -> Path | None:
        """See `baseline`."""
        if suite.runner != "pytest" or suite.image is not None:
            return None
        try:
            return bytecode_folder(self.cache, self.python, environments.identity(self.python))
        except OSError:  # such as a full disk: the first candidate needs it, and says so
            return None


def _write(path: Path, measured: Baseline) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(sealed(serialisation.encode(measured)), "utf-8")
        partial.replace(path)
    except OSError as error:  # it took minutes to measure, and is valid for this call
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        why = f"the baseline of the repository's tests can't be stored, and is measured again next time ({error})"
        warnings.warn("; ".join(filter(None, (why, full_disk(error)))), stacklevel=2)


def _read(path: Path) -> Baseline | None:
    """The stored baseline; None if it is missing or damaged."""
    try:
        return serialisation.decode_plain(Baseline, unsealed(path.read_text("utf-8")))  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, TypeError):
        return None
