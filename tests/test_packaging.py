"""The package map: the root's folders are `regrade.*` and hide neither Hugging Face's `datasets` nor a user's files."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
LAYERS = ("datasets", "rewards", "evaluators", "policy_training", "reports", "cli")
LIGHT = ("regrade.datasets.tasks", "regrade.rewards", "regrade.evaluators", "regrade.reports", "regrade.cli.main")


def run_python(*arguments: str, cwd: Path) -> str:
    """Standard output of a fresh interpreter. PYTHONPATH is left out: only the installation may find `regrade`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(
    find_spec("trl") is None, reason="the `train` extra, which brings Hugging Face's datasets, is not installed"
)
def test_from_the_root_datasets_is_hugging_faces_and_ours_is_regrades() -> None:
    code = (
        "import datasets, regrade.datasets.tasks as ours; "
        "print(datasets.__file__); print(ours.__file__); print(datasets.Dataset)"
    )
    theirs, ours, dataset = run_python("-c", code, cwd=ROOT).splitlines()
    assert "site-packages" in theirs
    assert Path(ours).resolve() == ROOT / "datasets" / "tasks.py"
    assert "Dataset" in dataset


def test_a_users_own_files_of_the_same_names_keep_working(tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text("MINE = 'rewards'\n")
    (tmp_path / "reports.py").write_text("MINE = 'reports'\n")
    (tmp_path / "datasets.py").write_text("MINE = 'datasets'\n")
    (tmp_path / "script.py").write_text(
        "import datasets, reports, rewards\nimport regrade.rewards, regrade.datasets.tasks\n"
        "print(rewards.MINE, reports.MINE, datasets.MINE, regrade.rewards.__name__)\n"
    )
    assert run_python("script.py", cwd=tmp_path) == "rewards reports datasets regrade.rewards"


@pytest.mark.parametrize("module", LIGHT)
def test_importing_a_light_module_loads_nothing_heavy(module: str, tmp_path: Path) -> None:
    code = (
        f"import sys, {module}; "
        "print([n for n in ('torch', 'transformers', 'trl', 'docker', 'ray', 'accelerate') if n in sys.modules])"
    )
    assert run_python("-c", code, cwd=tmp_path) == "[]"


def test_every_folder_with_modules_or_data_is_in_the_package_map() -> None:
    """The list is explicit: a folder left out is missing from the wheel, though not from an editable install. A folder
    of data is a package for setuptools, which warns that it will leave out others."""
    files = [path for layer in LAYERS for path in (ROOT / layer).rglob("*") if path.is_file()]
    folders = {path.parent.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert {"regrade." + folder.replace("/", ".") for folder in folders} == set(SETUP["packages"])
    assert {name: "regrade." + folder.replace("/", ".") for name, folder in SETUP["package-dir"].items()} == {
        name: name for name in SETUP["packages"]
    }


def test_the_citation_names_this_version_and_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert {f"version: {project['version']}", f"license: {project['license']}"} <= set(lines)


def test_make_release_finds_the_interpreters_that_run_and_skips_the_others(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("release", ROOT / "tests" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    release = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = release  # dataclasses look their module up
    spec.loader.exec_module(release)
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert this in release.supported() == ["3.11", "3.12", "3.13"]
    with pytest.MonkeyPatch.context() as patch:
        shim = tmp_path / "bin" / f"python{this}"  # as of pyenv: it is there, and is of no version
        shim.parent.mkdir()
        shim.write_text("#!/bin/sh\necho no version is set >&2\nexit 127\n")
        shim.chmod(0o755)
        patch.setenv("PATH", str(shim.parent))
        patch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
        assert release.interpreter(this) is None
        real = tmp_path / "pyenv" / "versions" / f"{this}.0" / "bin" / "python"
        real.parent.mkdir(parents=True)
        real.symlink_to(sys.executable)
        assert release.interpreter(this) == real


def test_only_datasets_is_without_an_init_file() -> None:
    assert not (ROOT / "datasets" / "__init__.py").exists(), "it would hide Hugging Face's package"
    assert not (ROOT / "__init__.py").exists()
    for folder in LAYERS[1:]:
        assert (ROOT / folder / "__init__.py").is_file()


def test_the_links_for_the_type_checkers_lead_to_the_folders() -> None:
    for folder in LAYERS:
        link = ROOT / ".typing" / "regrade" / folder
        assert link.is_symlink(), f"{link} is missing: mypy would pass on nothing"
        assert link.resolve() == ROOT / folder


@pytest.mark.slow
def test_the_wheel_holds_every_module_with_its_data_and_works(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in (
        *LAYERS,
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "MANIFEST.in",
    ):  # a copy: a build leaves its own folders behind
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    run_python(
        *pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source), cwd=tmp_path
    )
    (wheel,) = tmp_path.glob("regrade-*.whl")

    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("regrade/")}
    wanted = {
        f"regrade/{path.relative_to(ROOT).as_posix()}"
        for layer in LAYERS
        for pattern in (
            "*.py",
            "py.typed",
            "templates/*",
            "shipped/*.json",
            "cross_module/*.json",
            "recipes/*.toml",
            "sandboxes/hosts",
        )
        for path in (ROOT / layer).rglob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == wanted

    run_python(*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel), cwd=tmp_path)
    code = "import sys; sys.path.insert(0, 'site'); import regrade.rewards as it, regrade.cli.main; print(it.__file__)"
    assert Path(run_python("-c", code, cwd=tmp_path)).is_relative_to(tmp_path / "site")
