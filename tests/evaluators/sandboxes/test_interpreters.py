"""An interpreter starts in a sandbox as it does outside, by whatever path it is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from regrade.evaluators.execution.environments import python_for
from regrade.evaluators.sandboxes import Program, Sandbox, choose
from regrade.evaluators.sandboxes.interpreters import interpreter_folders

SHOWS = "import marker, sys; print(marker.__name__, sys.version_info[0])"
BASE = Path(sys.executable).resolve()


@pytest.fixture(params=["bubblewrap", "process"])
def sandbox(request) -> Sandbox:
    return choose(request.param)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "repo").mkdir()
    return tmp_path


def make_environment(folder: Path, base: Path = BASE) -> Path:
    """With a module that no other environment has."""
    subprocess.run([str(base), "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "marker.py").write_text("")
    return folder / "bin" / "python"


def said_by(sandbox: Sandbox, python: Path, program: str = SHOWS) -> str:
    session = sandbox.start(
        Program(python=python_for((str(python),), Path("unused")), arguments=("-c", program), mounts=())
    )
    try:
        return (session.receive(30.0) or session.errors.encode()).decode().strip()
    finally:
        session.close()


@pytest.mark.parametrize(
    "path",
    ["repo/../venv/bin/python", "venv/bin/../bin/python", "venv/lib/python/../../bin/python", "venv/bin/x/../python"],
)
def test_a_path_that_goes_up(sandbox, place, path):
    make_environment(place / "venv")
    for folder in ("lib/python", "bin/x"):
        (place / "venv" / folder).mkdir()
    assert said_by(sandbox, place / path) == "marker 3"


def test_a_path_that_goes_up_behind_a_link(sandbox, place):
    make_environment(place / "elsewhere" / "venv")
    (place / "elsewhere" / "deep").mkdir()
    (place / "link").symlink_to(place / "elsewhere" / "deep")
    assert said_by(sandbox, place / "link" / ".." / "venv" / "bin" / "python") == "marker 3"


def test_an_environment_behind_a_link(sandbox, place):
    make_environment(place / "elsewhere" / "venv")
    (place / "repo" / ".venv").symlink_to("../elsewhere/venv")
    (place / "link").symlink_to(place / "repo")
    for path in (place / "repo" / ".venv", place / "link" / ".venv"):
        assert said_by(sandbox, path / "bin" / "python") == "marker 3"
        assert python_for((str(path / "bin" / "python"),), place) == path / "bin" / "python"  # nothing to mend


def test_links_that_lead_out_of_an_environment_behind_a_link(sandbox, place):
    # From the folder that the sandbox shows in place of the link, the same steps upwards lead elsewhere.
    python = make_environment(place / "venv")
    base = place / "base" / "bin" / BASE.name
    base.parent.mkdir(parents=True)
    base.symlink_to(BASE)
    for link in python.parent.glob("python*"):
        link.unlink()
    python.symlink_to(f"../../base/bin/{base.name}")
    (place / "repo" / "very" / "deep").mkdir(parents=True)
    (place / "repo" / "very" / "deep" / ".venv").symlink_to(place / "venv")
    assert said_by(sandbox, place / "repo" / "very" / "deep" / ".venv" / "bin" / "python") == "marker 3"


def test_a_link_to_an_interpreter_is_followed_and_its_folder_not_shown(sandbox, place):
    (place / "python").symlink_to(BASE)
    program = f"import os; print(os.path.exists({str(place / 'repo')!r}))"
    assert said_by(sandbox, place / "python", program) == str(not sandbox.isolated)


def test_of_the_links_of_an_environment_only_their_own_folders_are_shown(place):
    base = place / "home" / ".local" / "bin" / "python3"
    base.parent.mkdir(parents=True)
    base.symlink_to(BASE)
    (place / "home" / ".local" / "secret").write_text("")
    python = make_environment(place / "home" / "venv", base)
    folders = interpreter_folders(python)
    assert base.parent in folders
    assert not any((place / "home" / ".local" / "secret").is_relative_to(folder) for folder in folders)
    program = f"import marker, os; print(os.path.exists({str(place / 'home' / '.local' / 'secret')!r}))"
    assert said_by(choose("bubblewrap"), python, program) == "False"


def test_a_program_that_looks_at_its_name_keeps_it(place):
    (place / "shims").mkdir()
    (place / "shims" / "manager").write_text(f'#!/bin/sh\n[ "${{0##*/}}" = python ] && exec {BASE} "$@"\n')
    (place / "shims" / "manager").chmod(0o755)
    (place / "shims" / "python").symlink_to("manager")
    assert said_by(choose("process"), place / "shims" / "python", "print(1)") == "1"
