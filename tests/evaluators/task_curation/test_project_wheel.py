"""The build of a repository runs in the sandbox: a hostile one reaches nothing, and its wheel is only read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.mining.repositories import open_repository
from regrade.evaluators.sandboxes import choose
from regrade.evaluators.task_curation.project_environment import build_environment
from regrade.evaluators.task_curation.project_wheel import build_project_wheel, generated_files

PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "shop"\n'
BACKEND = '''
import os, pathlib, socket, zipfile

METADATA = """Metadata-Version: 2.1
Name: shop
Version: 1
License-Expression: MIT
Provides-Extra: fast
Requires-Dist: attrs >=23
Requires-Dist: never ; python_version < "3"
Requires-Dist: orjson ; extra == "fast"
Provides-Extra: all
Requires-Dist: Shop[fast] ; extra == "all"
Requires-Dist: other @ https://example.org/other.whl

"""


def attempt(action):
    try:
        action()
    except OSError:
        return False
    return True


def build_wheel(folder, config_settings=None, metadata_directory=None):
    print("noise on stdout, such as {}")
    reached = [
        name
        for name, action in {
            "outside": lambda: os.listdir(OUTSIDE),
            "source": lambda: pathlib.Path("/source/shop/__init__.py").write_text("x"),
            "network": lambda: socket.create_connection(("127.0.0.1", PORT), timeout=5),
        }.items()
        if attempt(action)
    ]
    with zipfile.ZipFile(os.path.join(folder, "shop-1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("shop-1.dist-info/METADATA", METADATA)
        wheel.writestr("shop-1.dist-info/RECORD", "")
        wheel.writestr("shop/__init__.py", "replaced")
        wheel.writestr("shop/_reached.py", repr(reached))
        wheel.writestr("../leaving.py", "")
        wheel.writestr("unrelated/__init__.py", "")
    return "shop-1-py3-none-any.whl"
'''


def project(folder: Path, backend: str) -> Path:
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "__init__.py").write_text("NAME = 1\n")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(backend)
    return folder


def test_a_hostile_build_reaches_nothing_and_its_wheel_is_read(tmp_path: Path) -> None:
    import socket

    sandbox = choose()
    if not sandbox.isolated:
        pytest.skip("only a plain process works here, which is no security boundary")
    with socket.create_server(("127.0.0.1", 0)) as server:
        backend = BACKEND.replace("OUTSIDE", repr(str(tmp_path))).replace("PORT", str(server.getsockname()[1]))
        root = project(tmp_path / "shop", backend)
        wheel = build_project_wheel(root, Path(sys.executable), sandbox)
    assert wheel.error == ""
    assert wheel.licence == "MIT"
    assert wheel.extras == ("fast", "all")
    assert wheel.required_for() == ("attrs>=23",)
    assert wheel.required_for(["fast"]) == ("attrs>=23", "orjson")
    assert wheel.required_for(["all"]) == ("attrs>=23", "orjson")
    files = generated_files(wheel, root, (".",))
    assert set(files) == {"shop-1.dist-info/METADATA", "shop/_reached.py"}
    assert files["shop/_reached.py"] == b"[]"
    assert (root / "shop" / "__init__.py").read_text() == "NAME = 1\n"


@pytest.mark.parametrize(
    ("backend", "error"),
    [
        ("def build_wheel(*_): raise RuntimeError('no compiler')", "RuntimeError: no compiler"),
        ("import os\nos._exit(3)", "the build ended without a result"),
        ("def build_wheel(*_): return 'x.whl'", "the build wrote no wheel"),
        ("def build_wheel(folder, *_): open(folder + '/x.whl', 'w').write('half')", "the build wrote no valid wheel"),
    ],
)
def test_a_build_without_a_wheel_tells_why(tmp_path: Path, backend: str, error: str) -> None:
    wheel = build_project_wheel(project(tmp_path / "shop", backend), Path(sys.executable), choose())
    assert error in wheel.error
    assert wheel.files == {}


@pytest.mark.slow
def test_the_environment_is_locked_and_the_copy_has_what_the_build_generates(tmp_path: Path) -> None:
    backend = BACKEND.replace("Requires-Dist: attrs >=23\n", "").replace("OUTSIDE", "'/nowhere'").replace("PORT", "1")
    root = project(tmp_path / "shop", backend)
    (root / "requirements-test.txt").write_text("pytest\n")
    cache = tmp_path / "cache"
    first = build_environment(open_repository(str(root), cache), choose(), cache)
    assert first.groups == ("requirements-test.txt",)
    assert any(requirement.startswith("pytest==") for requirement in first.requirements)
    assert all("==" in requirement for requirement in first.requirements)
    assert first.repository.tree.read("shop/_reached.py") == "[]"
    assert first.licence == "MIT"
    assert set(first.generated) == {"shop-1.dist-info/METADATA", "shop/_reached.py"}
    assert build_environment(open_repository(str(root), cache), choose(), cache) == first


@pytest.mark.slow
def test_a_requirement_of_the_tests_without_a_wheel_is_left_out_and_told(tmp_path: Path) -> None:
    root, cache = tmp_path / "shop", tmp_path / "cache"
    root.mkdir()
    (root / "requirements-test.txt").write_text("pytest\niniconfig>=99999\n")
    (root / "shop.py").write_text("")
    made = build_environment(open_repository(str(root), cache), choose(), cache)
    assert made.groups == ("requirements-test.txt",)
    assert any(requirement.startswith("pytest==") for requirement in made.requirements)
    assert [note for note in made.notes if "run without iniconfig>=99999, of which no wheel fits" in note]
    (root / "requirements-test.txt").write_text("pytest>=99999\n")
    with pytest.raises(UserError, match="pytest>=99999"):
        build_environment(open_repository(str(root), cache), choose(), cache)
