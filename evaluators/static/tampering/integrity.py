"""Signs that a patch tampers with the evaluation, with file and line; they are no proof.

The run takes tests and configuration from the pristine tree: edits of them have no effect, are no offence by
themselves, and are listed as ignored. A gate closes on code that only an exploit needs (see `Tampering.conclusive`).
The scan gives reasons; the isolation of the test run protects the verdict.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.docstrings import edited_examples
from regrade.evaluators.static.files import ChangedFile, is_unprotected, patched_texts, read, with_renames
from regrade.evaluators.static.syntax import python_lines
from regrade.evaluators.static.tampering.lookups_of_tests import lookup_signs
from regrade.evaluators.static.tampering.patterns import pattern_signs
from regrade.evaluators.static.tampering.pytest_configuration import configuration_signs
from regrade.evaluators.static.tampering.python_code import code_signs, conftest_signs
from regrade.rewards.evidence import Integrity, Tampering

TEST_RUNNER_MODULES = frozenset({"pytest", "_pytest", "pluggy", "iniconfig", "unittest", "doctest"})
"""Top-level modules that produce the verdict."""
COMPILED = (".pyc", ".pyo", ".so", ".pyd", ".dll", ".dylib")


def probe(before: Tree, after: Tree, patch: Patch, task: Task) -> Integrity:  # noqa: ARG001 (every probe has this signature)
    """The signs in the patch, and its files that the run ignores.

    Raises:
        PatchError: the patch cannot be parsed.
    """
    signs = list(_link_signs(patch))
    ignored: tuple[str, ...] = ()
    with contextlib.suppress(PatchError):  # a patch that does not apply changes nothing
        texts = patched_texts(task.base, patch)
        files = with_renames(texts)
        signs = [*(sign for file in files for sign in _signs(file, before, task)), *signs]
        restored = (path for path in texts if not is_unprotected(path, task))
        ignored = tuple(sorted([*restored, *_ignored_examples(files, task)]))
    signs = list(dict.fromkeys(signs))
    signs.sort(key=lambda sign: not sign.conclusive)  # stable: conclusive signs first, in the order of the files
    return Integrity(signs=tuple(signs), ignored_files=ignored)


def _signs(file: ChangedFile, before: Tree, task: Task) -> Iterator[Tampering]:
    if file.after is None:
        return
    file = _in_lines(file, file.after)
    yield from _path_signs(file, before, task)
    name = PurePosixPath(file.path).name
    if name == "conftest.py":
        yield from conftest_signs(file, file.after or "")
    elif name.endswith(".py") and is_unprotected(file.path, task):
        yield from code_signs(file, file.before, file.after or "")
        yield from lookup_signs(file, file.after or "", before, task)
    yield from pattern_signs(file)
    if not name.endswith(".py") or name == "setup.py":
        yield from configuration_signs(file, file.before, file.after or "")


def _in_lines(file: ChangedFile, after: str) -> ChangedFile:
    """The file with the line ends that Python and configuration files have: a lone CR ends a line there, not in git."""
    if "\r" not in after:
        return file
    old, new = (text and "\n".join(python_lines(text)) for text in (file.before, after))
    return replace(file, before=old, after=new)


def _ignored_examples(files: Iterable[ChangedFile], task: Task) -> Iterator[str]:
    """The docstrings whose edited examples do not run: those of the base do."""
    for file in files:
        if file.path in task.suite.doctest_files:
            for name in edited_examples(file.before or "", file.after or ""):
                yield f"{file.path} (examples of {name or 'the module'})"


def _path_signs(file: ChangedFile, before: Tree, task: Task) -> Iterator[Tampering]:
    path = PurePosixPath(file.path)
    if path.name in ("sitecustomize.py", "usercustomize.py"):
        yield Tampering("start-up hook", file.path, 1, "Python runs this file before anything else")
    elif path.suffix == ".pth":
        yield Tampering("start-up hook", file.path, 1, "Python runs the import lines of a .pth file when it starts")
    elif path.suffix in COMPILED:
        yield Tampering("compiled code", file.path, 1, "compiled code cannot be read, and may stand in for a module")
    elif (file.before is None or file.old_path != file.path) and (shadowed := _shadowed(path, before, task)):
        yield Tampering("shadowed module", file.path, 1, f"hides the installed module {shadowed!r}")


def _shadowed(path: PurePosixPath, before: Tree, task: Task) -> str:
    """The module of pytest, of the standard library or of the tests' environment that a new file hides on sys.path;
    empty without one. Of the environment, those count that the tests of the base import."""
    # pytest puts the folders of test files on sys.path as well, or that above their packages.
    beside = {_import_folder(file, before) for file in task.suite.test_files if file.endswith(".py")}
    for root in {".", *task.suite.python_path, *beside}:
        if not path.is_relative_to(root) and root != ".":
            continue
        parts = path.parts if root == "." else path.relative_to(root).parts
        top = parts[0].removesuffix(".py")
        is_module = path.suffix == ".py" and (len(parts) == 1 or parts[1:] == ("__init__.py",))
        is_installed = top in TEST_RUNNER_MODULES or top in sys.stdlib_module_names or top in task.suite.foreign_modules
        if is_module and is_installed and read(before, str(path)) is None:
            return top
    return ""


def _import_folder(file: str, tree: Tree) -> str:
    folder = PurePosixPath(file).parent
    while folder.name and read(tree, str(folder / "__init__.py")) is not None:
        folder = folder.parent
    return str(folder)


def _link_signs(patch: Patch) -> Iterator[Tampering]:
    """Symbolic links: readers of the workspace could follow them out of it."""
    path = ""
    for line in patch.plain.text.split("\n"):
        if line.startswith("diff --git "):
            path = line.rpartition(" b/")[2]
        elif re.match(r"(new file mode|new mode) 120000$", line):
            yield Tampering("symbolic link", path, 1, "a link may lead out of the repository")
