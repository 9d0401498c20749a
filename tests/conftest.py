"""What all tests share: the quick ones run first, so that a mistake shows early."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from regrade.evaluators.execution import environments
from regrade.evaluators.sandboxes.interpreters import plain_path

settings.register_profile("untimed", deadline=None)  # a busy machine is no defect
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_configure() -> None:
    """A shell starts background jobs with SIGINT ignored, and what they start inherits it: Ctrl-C is tested here."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def lookups_of_this_interpreter() -> Iterator[None]:
    """No test installs anything into the interpreter that runs the tests, so its 40,000 files are read once a session,
    not at each of a thousand lookups; as are its plugins. The lookups of every other interpreter are as ever."""
    this = plain_path(Path(sys.executable))
    read, plugins, look_ahead = environments._read_installed, environments.pytest_plugins, environments.look_ahead
    read_once, plugins_once = functools.cache(read), functools.cache(plugins)

    def look_ahead_at_others(python: Path) -> None:
        if python != this:
            look_ahead(python)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environments, "_read_installed", lambda python: (read_once if python == this else read)(python))
        patch.setattr(
            environments, "pytest_plugins", lambda python: dict((plugins_once if python == this else plugins)(python))
        )
        patch.setattr(environments, "look_ahead", look_ahead_at_others)
        yield
