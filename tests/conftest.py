"""What all tests share: the quick ones run first, so that a mistake shows early."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no defect
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_configure() -> None:
    """A shell starts background jobs with SIGINT ignored, and what they start inherits it: Ctrl-C is tested here."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
