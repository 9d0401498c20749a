"""Optional dependencies: a missing one is a user error that names the packages to install."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from regrade.datasets.errors import UserError


def check_training_libraries(purpose: str) -> None:
    """Look for the libraries of training, without the seconds of their import. Raises UserError if one is missing."""
    with training_libraries(purpose):
        for library in ("torch", "transformers", "trl"):
            if importlib.util.find_spec(library) is None:
                raise ModuleNotFoundError(name=library)


@contextmanager
def training_libraries(purpose: str) -> Iterator[None]:
    """Import modules that need the libraries of training. Raises UserError if one of its libraries is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in ("", "regrade"):  # a defect of this program
            raise
        from regrade.policy_training.policies.models import INSTALL_TRAINING

        raise UserError(f"{purpose} needs {library}, which is not installed: {INSTALL_TRAINING}") from error
