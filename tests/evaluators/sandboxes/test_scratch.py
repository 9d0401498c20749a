"""Scratch folders are removed whatever a candidate left in them, and nobody's rubbish stops anybody."""

from __future__ import annotations

import os
import tempfile

import pytest

from regrade.evaluators.sandboxes.scratch import remove, scratch_folder


@pytest.fixture
def deep(tmp_path, monkeypatch):
    """A folder as a process that is gone left it, with one too deep for Python inside."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / "regrade-999999-1-left"
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    return folder


def test_a_folder_too_deep_for_python_is_removed(deep):
    remove(deep)
    assert not deep.exists()


def test_what_a_dead_process_left_stops_no_other_one(deep):
    made = scratch_folder()
    assert made.is_dir()
    assert not deep.exists()
