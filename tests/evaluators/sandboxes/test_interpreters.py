"""An interpreter starts in a sandbox as it does outside, by any path."""

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
def root(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "repo").mkdir()
    return tmp_path


def make_environment(folder: Path, base: Path = BASE) -> Path:
    """An environment with a module that no other one has."""
    subprocess.run([str(base), "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "marker.py").write_text("")
    return folder / "bin" / "python"


def output_of(sandbox: Sandbox, python: Path, program: str = SHOWS) -> str:
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
def test_a_path_that_goes_up(sandbox, root, path):
    make_environment(root / "venv")
    for folder in ("lib/python", "bin/x"):
        (root / "venv" / folder).mkdir()
    assert output_of(sandbox, root / path) == "marker 3"


def test_a_path_that_goes_up_behind_a_link(sandbox, root):
    make_environment(root / "elsewhere" / "venv")
    (root / "elsewhere" / "deep").mkdir()
    (root / "link").symlink_to(root / "elsewhere" / "deep")
    assert output_of(sandbox, root / "link" / ".." / "venv" / "bin" / "python") == "marker 3"


def test_an_environment_behind_a_link(sandbox, root):
    make_environment(root / "elsewhere" / "venv")
    (root / "repo" / ".venv").symlink_to("../elsewhere/venv")
    (root / "link").symlink_to(root / "repo")
    for path in (root / "repo" / ".venv", root / "link" / ".venv"):
        assert output_of(sandbox, path / "bin" / "python") == "marker 3"
        assert python_for((str(path / "bin" / "python"),), root) == path / "bin" / "python"  # nothing to fix


def test_links_that_lead_out_of_an_environment_behind_a_link(sandbox, root):
    # From the folder that the sandbox shows in place of the link, the same steps upwards lead elsewhere.
    python = make_environment(root / "venv")
    base = root / "base" / "bin" / BASE.name
    base.parent.mkdir(parents=True)
    base.symlink_to(BASE)
    for link in python.parent.glob("python*"):
        link.unlink()
    python.symlink_to(f"../../base/bin/{base.name}")
    (root / "repo" / "very" / "deep").mkdir(parents=True)
    (root / "repo" / "very" / "deep" / ".venv").symlink_to(root / "venv")
    assert output_of(sandbox, root / "repo" / "very" / "deep" / ".venv" / "bin" / "python") == "marker 3"


def test_a_link_to_an_interpreter_is_resolved_and_its_folder_not_mounted(sandbox, root):
    (root / "python").symlink_to(BASE)
    program = f"import os; print(os.path.exists({str(root / 'repo')!r}))"
    assert output_of(sandbox, root / "python", program) == str(not sandbox.isolated)


def test_only_the_folders_of_an_environments_links_are_mounted(root):
    base = root / "home" / ".local" / "bin" / "python3"
    base.parent.mkdir(parents=True)
    base.symlink_to(BASE)
    (root / "home" / ".local" / "secret").write_text("")
    python = make_environment(root / "home" / "venv", base)
    folders = interpreter_folders(python)
    assert base.parent in folders
    assert not any((root / "home" / ".local" / "secret").is_relative_to(folder) for folder in folders)
    program = f"import marker, os; print(os.path.exists({str(root / 'home' / '.local' / 'secret')!r}))"
    assert output_of(choose("bubblewrap"), python, program) == "False"


def test_a_program_that_depends_on_its_name_keeps_it(root):
    (root / "shims").mkdir()
    (root / "shims" / "manager").write_text(f'#!/bin/sh\n[ "${{0##*/}}" = python ] && exec {BASE} "$@"\n')
    (root / "shims" / "manager").chmod(0o755)
    (root / "shims" / "python").symlink_to("manager")
    assert output_of(choose("process"), root / "shims" / "python", "print(1)") == "1"
