"""The requirements that the files of a repository declare: every form, and what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrade.datasets.mining.declared_requirements import (
    build_requirements,
    declared_groups,
    locked_versions,
    runtime_requirements,
)
from regrade.datasets.tasks import Tree

FILES = {
    "pyproject.toml": """
[build-system]
requires = ["hatchling>=1"]
[project]
name = "shop"
dependencies = ["attrs>=23", "internal @ git+https://example.org/x"]
[project.optional-dependencies]
all = ["shop[fast]", "rich"]
fast = ["orjson"]
[dependency-groups]
test = ["pytest", {include-group = "types"}, {include-group = "test"}]
types = ["mypy==1.0"]
[tool.poetry.group.dev.dependencies]
python = "^3.9"
pytest = "^7.2"
black = {version = "~1.2", extras = ["d"], markers = "python_version > '3'"}
local = {path = "../local"}
zero = "^0.2.3"
""",
    "tox.ini": "[testenv]\ndeps =\n  py312: hypothesis\n  -r requirements/test.txt\nextras = fast\n[testenv:docs]\ndeps = sphinx",
    "requirements/test.txt": "-r base.txt\npytest-mock  # a comment\n-e .\n--index-url https://example.org\n",
    "requirements/base.txt": "six ; python_version > '3' \\\n    --hash=sha256:00\n-r test.txt\n",
    "noxfile.py": "def tests(session):\n    session.install('coverage', '-r', 'requirements/base.txt', '.[fast]')\n",
    "setup.cfg": "[options]\ntests_require = mock\n[options.extras_require]\ncli = click\n",
    "uv.lock": '[[package]]\nname = "At_trs"\nversion = "23.1"\n[[package]]\nname = "x"\nversion = "1"\n[[package]]\nname = "x"\nversion = "2"\n',
}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return Tree(tmp_path)


def test_groups_of_every_form(tree: Tree) -> None:
    groups = {group.origin: (group.requirements, group.extras) for group in declared_groups(tree)}
    marker = 'python_version > "3"'
    assert groups == {
        "pyproject.toml [project.optional-dependencies] all": (("rich",), ("fast",)),
        "pyproject.toml [project.optional-dependencies] fast": (("orjson",), ()),
        "pyproject.toml [dependency-groups] test": (("pytest", "mypy==1.0"), ()),
        "pyproject.toml [dependency-groups] types": (("mypy==1.0",), ()),
        "pyproject.toml [tool.poetry.group.dev]": (
            ("pytest<8,>=7.2", f"black[d]<1.3,>=1.2; {marker}", "zero<0.3,>=0.2.3"),
            (),
        ),
        "setup.cfg [options] tests_require": (("mock",), ()),
        "setup.cfg [options.extras_require] cli": (("click",), ()),
        "tox.ini [testenv]": (("hypothesis", f"six; {marker}", "pytest-mock"), ("fast",)),
        "tox.ini [testenv:docs]": (("sphinx",), ()),
        "noxfile.py tests": (("coverage", f"six; {marker}", "pytest-mock"), ("fast",)),
        "requirements/base.txt": ((f"six; {marker}", "pytest-mock"), ()),
        "requirements/test.txt": ((f"six; {marker}", "pytest-mock"), ()),
    }


def test_build_runtime_and_lock(tree: Tree) -> None:
    assert build_requirements(tree) == ("hatchling>=1",)
    assert runtime_requirements(tree).requirements == ("attrs>=23",)
    assert locked_versions(tree) == {"at-trs": "23.1"}


@pytest.mark.parametrize(
    ("files", "build"),
    [({}, None), ({"setup.py": "import os; os.abort()"}, ("setuptools", "wheel")), ({"pyproject.toml": "[["}, None)],
)
def test_a_repository_without_declarations_or_with_damaged_ones(
    tmp_path: Path, files: dict[str, str], build: tuple[str, ...] | None
) -> None:
    (tmp_path / "requirements.txt").mkdir()
    for path, text in {"tox.ini": "no section", "noxfile.py": "def (", "Pipfile.lock": "{", **files}.items():
        (tmp_path / path).write_text(text)
    tree = Tree(tmp_path)
    assert build_requirements(tree) == build
    assert declared_groups(tree) == []
    assert locked_versions(tree) == {}
