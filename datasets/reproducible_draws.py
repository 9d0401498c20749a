"""Draws of hypothesis that depend on nothing but their seed: not on the current folder, which they leave as it is."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis.configuration
import hypothesis.internal.conjecture.providers

_lock = threading.RLock()


@contextmanager
def reproducible_draws() -> Iterator[None]:
    """Draw the same values wherever the program runs.

    By itself, hypothesis also draws constants of the source code that it finds below the current folder. These, and its
    tables of characters, it stores there in `.hypothesis`, even without a database.
    """
    with _lock, tempfile.TemporaryDirectory(prefix="regrade-hypothesis-") as folder:
        names: dict[str, object] = {"__hypothesis_home_directory": Path(folder)}
        with _replaced(hypothesis.configuration, names), _replaced(*_without_constants()):
            yield


def _without_constants() -> tuple[Any, dict[str, object]]:
    providers: Any = hypothesis.internal.conjecture.providers
    if not hasattr(providers, "_get_local_constants"):  # versions before 6.131 look for none
        return providers, {}
    cache = type(providers.CONSTANTS_CACHE)(1024)
    return providers, {"_get_local_constants": providers.Constants, "CONSTANTS_CACHE": cache}


@contextmanager
def _replaced(module: Any, names: dict[str, object]) -> Iterator[None]:
    before = {name: getattr(module, name) for name in names}
    vars(module).update(names)
    try:
        yield
    finally:
        vars(module).update(before)
