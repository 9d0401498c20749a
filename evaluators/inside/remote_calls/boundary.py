"""The functions at which the candidate's code begins: what they are called, and modules that are loaded with them cut.

In the tests' process the body of such a function asks the candidate's process; there, the function as it was written is
noted by its key before any decorator gets hold of it.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

from regrade.evaluators.inside.remote_calls.plain_values import UncrossableError

CROSSING = "__regrade_crossing__"
Definition = ast.FunctionDef | ast.AsyncFunctionDef
Transform = Callable[[ast.Module, str], ast.Module]
"""(syntax tree, name of the module) -> the tree that is compiled"""


def functions(tree: ast.Module) -> Iterator[tuple[str, Definition, ast.Module | ast.ClassDef]]:
    """Key, definition and home of each function that lies in no other function. A key is the qualified name and, as a
    property has several, its number among those of that name.
    """
    seen: dict[str, int] = {}
    for name, function, home in _outermost(tree, "", tree):
        seen[name] = seen.get(name, 0) + 1
        yield f"{name}#{seen[name]}", function, home


def _outermost(
    node: ast.AST, prefix: str, home: ast.Module | ast.ClassDef
) -> Iterator[tuple[str, Definition, ast.Module | ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield prefix + child.name, child, home
        elif isinstance(child, ast.ClassDef):
            yield from _outermost(child, f"{prefix}{child.name}.", child)
        elif not isinstance(child, ast.Lambda):
            yield from _outermost(child, prefix, home)


def asking(cut: Mapping[str, bool], added: Sequence[str]) -> Transform:
    """The transform for the tests' side.

    Args:
        cut: key -> may its parameters stay as they are? Else it takes whatever it is given.
        added: keys of functions that the file does not have; they get a definition of their own.
    """

    def transform(tree: ast.Module, module: str) -> ast.Module:
        homes = {"": tree.body}
        for key, function, home in list(functions(tree)):
            if key in cut:
                _ask(function, key, module, keep=cut[key])
            if isinstance(home, ast.ClassDef):
                homes[key.rpartition(".")[0]] = home.body
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, node.body)
        for key in added:
            owner, _, name = key.partition("#")[0].rpartition(".")
            if owner in homes:
                stub = ast.parse(f"def {name}(): pass").body[0]
                assert isinstance(stub, ast.FunctionDef)
                _ask(stub, key, module, keep=False)
                homes[owner].append(stub)
        return ast.fix_missing_locations(tree)

    return transform


def _ask(function: Definition, key: str, module: str, *, keep: bool) -> None:
    """Replace the body by a question to the other side."""
    documentation = function.body[:1] if ast.get_docstring(function, clean=False) is not None else []
    if not keep:
        function.args = ast.arguments([], [], ast.arg("arguments"), [], [], ast.arg("keywords"), [])
        positional, keywords = "arguments", "keywords"
    else:
        given = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
        given += [f"*{function.args.vararg.arg}"] if function.args.vararg else []
        named = [f"{each.arg!r}: {each.arg}" for each in function.args.kwonlyargs]
        named += [f"**{function.args.kwarg.arg}"] if function.args.kwarg else []
        positional, keywords = f"({', '.join(given)}{',' if given else ''})", f"{{{', '.join(named)}}}"
    question = f"{CROSSING}({module!r}, {key!r}, {positional}, {keywords})"
    if isinstance(function, ast.AsyncFunctionDef):
        question = f"{CROSSING}.asynchronous()"
    if _is_generator(function):
        statement = f"return (yield from {question.replace('(', '.iterate(', 1)})"
    else:
        statement = f"return {question}"
    body = ast.parse(f"def f():\n {statement}").body[0]
    assert isinstance(body, ast.FunctionDef)
    for node in ast.walk(body):
        if hasattr(node, "lineno"):
            node.lineno = node.end_lineno = function.body[0].lineno  # type: ignore[attr-defined]
            node.col_offset = node.end_col_offset = 0  # type: ignore[attr-defined]
    function.body = [*documentation, *body.body]


def _is_generator(function: Definition) -> bool:
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, Definition | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
    return False


def noting(keys: Sequence[str]) -> Transform:
    """The transform for the candidate's side: the functions are noted as they are defined."""

    def transform(tree: ast.Module, module: str) -> ast.Module:
        for key, function, _ in list(functions(tree)):
            if key in keys:
                decorator = ast.parse(f"{CROSSING}.note({module!r}, {key!r})", mode="eval").body
                function.decorator_list.append(ast.copy_location(decorator, function))
        return ast.fix_missing_locations(tree)

    return transform


class Noted:
    """The candidate's functions at the boundary."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], Any] = {}

    def note(self, module: str, key: str) -> Callable[[Any], Any]:
        def noted(function: Any) -> Any:
            self._functions[module, key] = function
            return function

        return noted

    def function(self, module: str, key: str) -> Any:
        """Raises UncrossableError where importing the module does not define it."""
        if (module, key) not in self._functions:
            value: Any = importlib.import_module(module)
            for name in () if (module, key) in self._functions else key.partition("#")[0].split("."):
                value = getattr(value, name, None)  # a patch may have moved or wrapped it
            self._functions.setdefault((module, key), value)
        if not callable(self._functions[module, key]):
            raise UncrossableError(f"{module} defines no {key.partition('#')[0]} on import")
        return self._functions[module, key]


class Finder(MetaPathFinder):
    """Loads some files in another form."""

    def __init__(self, root: str, transforms: Mapping[str, Transform], crossing: Any) -> None:
        """`transforms`: path relative to the root -> transform."""
        self._transforms = {os.path.realpath(f"{root}/{path}"): each for path, each in transforms.items()}
        self._crossing = crossing

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        transform = self._transforms.get(os.path.realpath(spec.origin))
        if transform is None:
            return None
        spec.loader = _Loader(fullname, spec.origin, transform, self._crossing)
        return spec

    def install(self) -> None:
        sys.meta_path.insert(0, self)


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, transform: Transform, crossing: Any) -> None:
        super().__init__(name, path)
        self._transform = transform
        self._crossing = crossing

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        return compile(self._transform(tree, fullname), path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[CROSSING] = self._crossing
        super().exec_module(module)
