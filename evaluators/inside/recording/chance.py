"""Chance in tests, taken out: every run of a test draws the same random numbers, before a patch and after it."""

from __future__ import annotations

import contextlib
import random
import sys
import zlib
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

HYPOTHESIS = "hypothesis"


def seed(name: str) -> None:
    """Seed random numbers by name, so that a test draws the same ones whichever tests ran before it."""
    random.seed(name)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(zlib.crc32(name.encode()))


def fix_hypothesis() -> None:
    """Settle Hypothesis as soon as it is imported: before any test is decorated, whichever module imports it."""
    if HYPOTHESIS in sys.modules:
        _settle(sys.modules[HYPOTHESIS])
    else:
        sys.meta_path.insert(0, _HypothesisFinder())


class _HypothesisFinder:
    """Finds Hypothesis where the interpreter would, and settles it after its import. Removes itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != HYPOTHESIS:
            return None
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        execute = getattr(spec and spec.loader, "exec_module", None)
        if spec is None or execute is None:
            return None

        def execute_and_settle(module: ModuleType) -> None:
            execute(module)
            _settle(module)

        spec.loader.exec_module = execute_and_settle  # type: ignore[union-attr, method-assign]
        return spec


def _settle(module: Any) -> None:
    """The seed applies under any profile of the repository. The rest is the default that its profiles inherit: a busy
    machine fails no test by its clock, and no earlier run supplies examples."""
    with contextlib.suppress(Exception):  # a version without one of these, or the repository's own module of that name
        module.core.global_force_seed = 0
        settings = module.settings
        default = settings.get_profile("default")
        suppressed = {*default.suppress_health_check, module.HealthCheck.too_slow}
        settings.register_profile(
            "default", default, deadline=None, database=None, suppress_health_check=sorted(suppressed, key=str)
        )
        settings.load_profile("default")
