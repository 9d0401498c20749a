"""Cache of environments: an interpreter for each list of requirements, and its identity."""

from __future__ import annotations

import threading
from importlib.metadata import version
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import TestSuite
from regrade.evaluators.execution import environments
from regrade.evaluators.execution.image_environments import ImageEnvironments
from regrade.evaluators.execution.packages import installed_packages, runner_identity


class EnvironmentCache:
    """Interpreters and their identities, each computed once."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self.images = ImageEnvironments(cache)
        self._lock = threading.Lock()
        self._pythons: dict[tuple[str, ...], Path] = {}
        self._identities: dict[Path, str] = {}
        self._distributions: dict[Path, tuple[str, ...]] = {}

    def python(self, requirements: tuple[str, ...]) -> Path:
        """The interpreter for them. Raises UserError if it can't be created, does not run or has no pytest."""
        with self._lock:
            if requirements not in self._pythons:
                python = environments.python_for(requirements, self._cache)
                check_pytest(python, requirements)
                self._pythons[requirements] = python
            return self._pythons[requirements]

    def identity_of(self, python: Path) -> str:
        with self._lock:
            if python not in self._identities:
                self._identities[python] = environments.identity(python)
            return self._identities[python]

    def identity_for(self, suite: TestSuite, requirements: tuple[str, ...]) -> str:
        """Identity of the image of a suite, or else of the interpreter for the requirements.

        Raises:
            UserError: as `python`, or the image lacks what the tests need.
        """
        return self.identity(requirements) if suite.image is None else self.images.identity(suite.image)

    def runner_identity(self, suite: TestSuite, root: Path) -> str:
        """Identity of the program that runs a suite, and of its packages; empty: the environment covers them.

        Raises:
            UserError: the program does not run, or its packages can't be installed.
        """
        if suite.image is not None:
            return ""
        return runner_identity(suite.runner, installed_packages(suite, root, self._cache))

    def identity(self, requirements: tuple[str, ...]) -> str:
        return self.identity_of(self.python(requirements))

    def distributions(self, requirements: tuple[str, ...]) -> tuple[str, ...]:
        """See `environments.distributions`."""
        python = self.python(requirements)
        with self._lock:
            if python not in self._distributions:
                self._distributions[python] = environments.distributions(python)
            return self._distributions[python]


def check_pytest(python: Path, requirements: tuple[str, ...]) -> None:
    """The program in the sandbox imports pytest: one error here, before the worker of every task dies.

    Raises:
        UserError: the interpreter of these requirements has no importable pytest, or gives no answer in time.
    """
    if not requirements:
        return
    try:
        environments.pytest_plugins(python)
    except UserError as error:
        if requirements[0].startswith("/") or error.__cause__ is not None:
            raise  # the user's own interpreter, which the message names; or one that does not run, whatever it has
        raise UserError(
            f"a task's requirements ({', '.join(requirements)}) install no importable pytest, which its tests need: "
            f"add it to `requirements` in the task's file, such as pytest=={version('pytest')}; the cause: "
            f"{python} -c 'import pytest'"
        ) from error
