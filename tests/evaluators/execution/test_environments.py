"""The identity of an interpreter changes with everything that can change test outcomes, and with nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.evaluators.execution import environments
from regrade.evaluators.execution.environments import (
    COMPLETE,
    ENVIRONMENTS,
    PLUGINS,
    cached_pytest_plugins,
    forget_lookups,
    identity,
    interpreter_of,
    look_ahead,
    shared_lookups,
)
from regrade.evaluators.execution.packages import runner_identity
from regrade.evaluators.sandboxes.interpreters import plain_path
from regrade.evaluators.scoring.environment_cache import check_pytest
from regrade.evaluators.task_curation.local_repository import local_task

FINDER = """\
import sys
from importlib.util import spec_from_file_location
MAPPING = {"other": %r}
class _EditableFinder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return spec_from_file_location(name, MAPPING[name] + "/__init__.py") if name in MAPPING else None
def install():
    sys.meta_path.append(_EditableFinder)
"""
"""A shortened finder of an editable install, as setuptools writes it."""
BACKEND = """\
import zipfile
INFO = "other-1.0.dist-info/"
FILES = {
    INFO + "METADATA": "Metadata-Version: 2.1\\nName: other\\nVersion: 1.0\\n",
    INFO + "WHEEL": "Wheel-Version: 1.0\\nGenerator: here\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    INFO + "RECORD": "",
    %r: %r,
}
def build_editable(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(folder + "/other-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in FILES.items():
            wheel.writestr(name, text)
    return "other-1.0-py3-none-any.whl"
"""
OLD = (1_000_000_000, 1_000_000_000)
READ_INSTALLED, PYTEST_PLUGINS = environments._read_installed, environments.pytest_plugins


@pytest.fixture(autouse=True)
def lookups_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that all other tests share."""
    for name, lookup in (
        ("_read_installed", READ_INSTALLED),
        ("pytest_plugins", PYTEST_PLUGINS),
        ("look_ahead", look_ahead),
    ):
        monkeypatch.setattr(environments, name, lookup)


def make_environment(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def site_packages(python: Path) -> Path:
    (folder,) = python.parent.parent.glob("lib/python*/site-packages")
    return folder


def write(path: Path, text: str) -> None:
    """Write with a fixed modification time, so that the edit does not show in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, OLD)


def install_editable(python: Path, project: Path, file: str, text: str) -> None:
    """Install by pip, with a backend that writes one file beside the packages."""
    write(project / "backend.py", BACKEND % (file, text))
    write(
        project / "pyproject.toml", '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--editable", str(project)], check=True)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A virtual environment with a package."""
    environment = make_environment(tmp_path / "venv")
    write(site_packages(environment) / "subject" / "__init__.py", "x = 1\n")
    write(
        site_packages(environment) / "subject-1.0.dist-info" / "METADATA",
        "Metadata-Version: 2.1\nName: subject\nVersion: 1.0\n",
    )
    return environment


def test_an_edited_package_changes_the_identity(python):
    file, before = site_packages(python) / "subject" / "__init__.py", identity(python)
    file.write_text("x = 2\n")
    edited = identity(python)
    os.utime(file, OLD)
    assert len({before, edited}) == 2
    assert identity(python) == before  # of the same size at the same time: what is installed is not read


def test_lookups_are_shared_within_their_context_until_they_are_forgotten(python):
    file, before = site_packages(python) / "subject" / "__init__.py", identity(python)
    with shared_lookups():
        assert identity(python) == before
        file.write_text("x = 2\n")
        assert identity(python) == before
        forget_lookups()
        edited = identity(python)
        file.write_text("x = 30\n")
    assert len({before, edited, identity(python)}) == 3


def test_packages_read_ahead_are_those_of_the_repositorys_interpreter_and_are_read_once(tmp_path, python, monkeypatch):
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / ".venv").symlink_to(python.parent.parent)
    own = plain_path(tmp_path / "repository" / ".venv" / "bin" / "python")
    expected = identity(own)
    with shared_lookups():
        look_ahead(interpreter_of(tmp_path / "repository"))
        monkeypatch.setattr(environments, "_read_installed", None)  # a second lookup would fail
        assert identity(own) == expected


def test_a_lookup_ahead_that_nobody_needs_ends_with_its_context(tmp_path):
    with shared_lookups():
        look_ahead(interpreter_of(tmp_path))
        (process,) = (environments._SHARED.get() or {}).values()
    assert process.returncode is not None


def test_a_lookup_ahead_that_fails_is_repeated_with_its_reason(tmp_path):
    broken = tmp_path / ".venv" / "bin" / "python"
    write(broken, "#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    with shared_lookups():
        look_ahead(interpreter_of(tmp_path))
        with pytest.raises(UserError, match="does not run"):
            identity(plain_path(broken))


def test_an_interpreter_that_gives_no_answer_is_not_blamed_for_its_packages(tmp_path, monkeypatch):
    slow = tmp_path / ".venv" / "bin" / "python"
    write(slow, "#!/bin/sh\nexec sleep 20\n")
    slow.chmod(0o755)
    monkeypatch.setattr(environments, "ANSWER_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"gave no answer within 0\.2 s.* give the same command again"):
        identity(plain_path(slow))
    with pytest.raises(UserError, match="gave no answer"):
        check_pytest(plain_path(slow), ("attrs==1.0",))


def test_plugins_are_looked_up_once_for_each_environment_and_again_if_their_record_is_damaged(tmp_path):
    python = Path(sys.executable)
    found = environments.pytest_plugins(python)
    assert cached_pytest_plugins(python, tmp_path) == found
    (record,) = (tmp_path / PLUGINS).iterdir()
    stored = record.read_text()
    record.write_text(stored.replace('"content": {', '"content": {"other": "other", '))
    assert cached_pytest_plugins(python, tmp_path) == found
    assert record.read_text() == stored


@pytest.mark.parametrize(
    "name", ["new.py", "subject/data.json", "subject/module.so", "new.pth", "subject-2.0.dist-info/METADATA"]
)
def test_an_added_file_changes_the_identity(python, name):
    before = identity(python)
    write(
        site_packages(python) / name,
        "Metadata-Version: 2.1\nName: subject\nVersion: 2.0\n" if "METADATA" in name else "",
    )
    assert identity(python) != before


def test_byte_code_changes_nothing(python):
    before = identity(python)
    subprocess.run([str(python), "-m", "compileall", "-q", str(site_packages(python))], check=True)
    assert list(site_packages(python).rglob("*.pyc"))
    assert identity(python) == before


@pytest.mark.parametrize("file", ["other.pth", "__editable___other.pth", "_other_loader.py"])
def test_sources_of_an_editable_install_count_by_content(python, tmp_path, file):
    project, source = tmp_path / "project", tmp_path / "project" / "src" / "other" / "__init__.py"
    write(source, "x = 1\n")
    write(site_packages(python) / "__editable___other_finder.py", FINDER % str(source.parent))
    texts = {
        "other.pth": f"{project / 'src'}\n",
        "__editable___other.pth": "import __editable___other_finder; __editable___other_finder.install()\n",
        "_other_loader.py": "",  # no table and no path: a backend that imports in its own way
    }
    install_editable(python, project, file, texts[file])
    before = identity(python)
    write(source, "x = 2\n")
    assert identity(python) != before
    write(source, "x = 1\n")
    os.utime(source)  # as a checkout that comes back to it does
    (project / ".git").mkdir()
    (project / ".git" / "index").write_text("")
    subprocess.run([str(python), "-m", "compileall", "-q", str(project)], check=True)
    make_environment(project / "env")
    assert identity(python) == before
    write(source.with_name("new.py"), "")
    assert identity(python) != before


def test_links_are_followed_and_named_and_may_form_cycles(python, tmp_path):
    write(tmp_path / "flit" / "linked.py", "x = 1\n")
    (tmp_path / "flit" / "round").symlink_to(tmp_path / "flit")
    (tmp_path / "flit" / "nowhere").symlink_to(tmp_path / "missing")
    (site_packages(python) / "linked").symlink_to(tmp_path / "flit")
    before = identity(python)
    (tmp_path / "flit" / "linked.py").write_text("x = 2\n")
    after = identity(python)
    (site_packages(python) / "linked").unlink()
    assert len({before, after, identity(python)}) == 3


def test_environments_of_the_same_requirements_have_the_same_identity(python, tmp_path):
    moved = make_environment(tmp_path / "elsewhere" / "venv")
    shutil.copytree(site_packages(python), site_packages(moved), dirs_exist_ok=True)  # with the times of its files
    assert identity(moved) == identity(python)
    environments = [make_environment(tmp_path / cache / ENVIRONMENTS / "key") for cache in ("one", "two")]
    for number, environment in enumerate(environments):
        (environment.parent.parent / COMPLETE).touch()
        write(site_packages(environment) / "subject.py", f"x = {'1' * number}\n")
    assert identity(environments[0]) == identity(environments[1])
    write(site_packages(environments[1]) / "other.pth", str(tmp_path / "sources"))
    write(tmp_path / "sources" / "other.py", "")  # nobody but people edits these
    assert identity(environments[0]) != identity(environments[1])


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_packages_of_node_are_part_of_the_identity(tmp_path):
    # Only npm leaves a list of what it installed; and whatever the list says, a file may have been edited since.
    write(tmp_path / "packages" / "subject" / "index.js", "exports.x = 1\n")
    before = runner_identity("node", tmp_path / "packages")
    runner_identity.cache_clear()
    write(tmp_path / "packages" / ".cache" / "tool" / "data", "")
    assert runner_identity("node", tmp_path / "packages") == before
    runner_identity.cache_clear()
    (tmp_path / "packages" / "subject" / "index.js").write_text("exports.x = 2\n")
    assert runner_identity("node", tmp_path / "packages") != before


def test_many_packages_do_not_take_minutes(python):
    """A scan whose time grew with the square of the number of files would take that long; how fast it is, a benchmark
    shows."""
    for number in range(20_000):
        path = site_packages(python) / f"package{number // 100}" / f"module{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    began = time.perf_counter()
    identity(python)
    assert time.perf_counter() - began < 20.0


def test_the_tests_of_a_repository_run_again_when_its_environment_was_edited(tmp_path):
    repo, runs, passing = tmp_path / "repo", [], []
    tests = "import subject\ndef test_one(): assert subject.x == 1\ndef test_two(): assert subject.x == 2\n"
    write(repo / "test_it.py", tests)
    packages = site_packages(make_environment(repo / ".venv"))
    write(packages / "pytest.pth", str(Path(pytest.__file__).parents[1]))
    for text in ("x = 1\n", "x = 2\n", ""):
        if text:
            (packages / "subject.py").write_text(text)
        task = local_task(
            repo,
            runs=1,
            sandbox="process",
            cache=tmp_path / "cache",
            progress=lambda *_: runs.append(1),
            tell=lambda _: 0,
        )
        passing.append((task.pass_to_pass, len(runs)))
    assert passing == [
        (("test_it.py::test_one",), passing[0][1]),
        (("test_it.py::test_two",), 2 * passing[0][1]),
        (("test_it.py::test_two",), 2 * passing[0][1]),
    ]
