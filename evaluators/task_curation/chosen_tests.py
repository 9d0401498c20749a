"""Which tests of a repository are collected: the suite's own, those that a user names, without the deselected ones."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Annotated, Any

import msgspec

from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import LARGEST, Plain, converted
from regrade.datasets.json_text import shown
from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import OWN_PATHS, TestSuite, Tree


@dataclass(frozen=True, kw_only=True)
class TestChoice:
    """A user's choice of the tests of a repository; empty: what the repository itself configures."""

    __test__ = False

    tests: tuple[str, ...] = ()
    """Files and folders to collect, instead of the suite's own."""
    deselect: tuple[str, ...] = ()
    """Ids of tests (also their beginnings, as for pytest's own option), files and folders that are left out."""
    python_path: tuple[str, ...] = ()
    """Folders at the start of sys.path, instead of the detected ones."""
    fail_to_pass: tuple[str, ...] = ()
    """Names of the tests that a patch must fix (see `fail_to_pass.py`)."""
    time_limit: float | None = None
    """Limit of one run at the base, in seconds."""
    test_limit: float | None = None
    """See `Limits.test_seconds`."""

    def applied_to(self, suite: TestSuite, tree: Tree) -> TestSuite:
        """The suite with this choice, and with the files of the FAIL_TO_PASS tests.

        Raises:
            UserError: a path is outside the repository or does not exist, or the runner has no such choice.
        """
        if suite.runner != "pytest" and (self.deselect or self.python_path):
            raise UserError(f"`deselect=` and `python_path=` apply to pytest, and these tests run with {suite.runner}")
        tests = tuple(_inside(tree, path, "tests") for path in self.tests)
        python_path = tuple(_folder_inside(tree, path, "python_path") for path in self.python_path)
        options = [option for name in self.deselect for option in _left_out(tree, name)]
        chosen = replace(
            suite,
            paths=tests or suite.paths,
            python_path=python_path or suite.python_path,
            options=(*suite.options, *options),
        )
        return also_collecting(chosen, tree, self.fail_to_pass)


class _Table(msgspec.Struct, forbid_unknown_fields=True, rename="kebab", frozen=True):
    """`[tool.regrade]` of the repository's pyproject.toml."""

    tests: tuple[Plain, ...] = ()
    deselect: tuple[Plain, ...] = ()
    python_path: tuple[Plain, ...] = ()
    fail_to_pass: tuple[Plain, ...] = ()
    time_limit: Annotated[float, msgspec.Meta(ge=1, le=LARGEST)] | None = None
    test_timeout: Annotated[float, msgspec.Meta(ge=0.1, le=LARGEST)] | None = None


def configured(tree: Tree, choice: TestChoice) -> TestChoice:
    """The choice; what it leaves open is taken from `[tool.regrade]` in the pyproject.toml of the working tree.

    Raises:
        UserError: the table has an unknown key or a wrong value, or a file with the table is not TOML.
    """
    text = tree.read_or_none("pyproject.toml") or ""
    try:
        node: Any = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        if "[tool.regrade]" in text:
            raise UserError(f"{tree.root / 'pyproject.toml'}: not TOML ({error}): correct that line") from error
        return choice  # pytest itself reports it, if it reads this file
    tool = node.get("tool")
    if not isinstance(tool, dict) or "regrade" not in tool:
        return choice
    table = converted(tool["regrade"], _Table, f"{tree.root / 'pyproject.toml'}, [tool.regrade]")
    return TestChoice(
        tests=choice.tests or table.tests,
        deselect=choice.deselect or table.deselect,
        python_path=choice.python_path or table.python_path,
        fail_to_pass=choice.fail_to_pass or table.fail_to_pass,
        time_limit=table.time_limit if choice.time_limit is None else choice.time_limit,
        test_limit=table.test_timeout if choice.test_limit is None else choice.test_limit,
    )


def also_collecting(suite: TestSuite, tree: Tree, tests: Sequence[str]) -> TestSuite:
    """The suite with the files of some tests too, whatever their names."""
    files = [path for path in dict.fromkeys(map(file_of, tests)) if _is_relative(path) and _is_file(tree, path)]
    new = [path for path in files if not any(_is_below(path, own) for own in suite.paths if own)]
    if not new:
        return suite
    paths = (*(suite.paths or (OWN_PATHS,)), *new)
    return replace(suite, paths=paths)


def _is_file(tree: Tree, path: str) -> bool:
    return path in tree.replaced or (path not in tree.removed and (tree.root / path).is_file())


def _is_below(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(PurePosixPath(folder))


def _is_relative(path: str) -> bool:
    return bool(path) and not path.startswith(("/", "~", "-")) and ".." not in PurePosixPath(path).parts


def _inside(tree: Tree, path: str, option: str) -> str:
    if not _is_relative(path):
        raise UserError(f"`{option}={shown(path)}`: pass a path relative to the repository, inside it")
    if not (tree.root / path).exists():
        raise UserError(f"`{option}={shown(path)}`: {tree.root} has no such file or folder")
    return PurePosixPath(path).as_posix()


def _folder_inside(tree: Tree, path: str, option: str) -> str:
    inside = _inside(tree, path, option)
    if not (tree.root / inside).resolve().is_relative_to(tree.root.resolve()):
        raise UserError(f"`{option}={shown(path)}`: it is a link out of the repository; pass a folder inside it")
    if not (tree.root / inside).is_dir():
        raise UserError(f"`{option}={shown(path)}`: pass a folder, not a file")
    return inside


def _left_out(tree: Tree, name: str) -> tuple[str, str]:
    if "::" in name:
        return "--deselect", name
    return "--ignore", _inside(tree, name, "deselect")
