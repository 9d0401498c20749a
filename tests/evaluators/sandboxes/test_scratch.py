"""Scratch folders are removed with any content, and leftovers that can't be removed are ignored."""

from __future__ import annotations

import os
import tempfile

import pytest

from regrade.evaluators.sandboxes.scratch import remove, scratch_folder


@pytest.fixture
def deep(tmp_path, monkeypatch):
    """A leftover folder of a dead process, with a subfolder too deep for Python."""
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


def test_leftovers_of_a_dead_process_stop_no_other_one(deep):
    folder = scratch_folder()
    assert folder.is_dir()
    assert not deep.exists()
