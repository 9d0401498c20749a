"""The functions at the boundary to the candidate's code: their keys, and modules loaded with these functions replaced.

In the tests' process the body of such a function calls the candidate's process. There, the original function is
registered by its key before any decorator is applied.
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
    """Key, definition and scope of each outermost function. A key is the qualified name and a number, since several
    functions can share a name (the parts of a property).
    """
    seen: dict[str, int] = {}
    for name, function, scope in _outermost(tree, "", tree):
        seen[name] = seen.get(name, 0) + 1
        yield f"{name}#{seen[name]}", function, scope


def _outermost(
    node: ast.AST, prefix: str, scope: ast.Module | ast.ClassDef
) -> Iterator[tuple[str, Definition, ast.Module | ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield prefix + child.name, child, scope
        elif isinstance(child, ast.ClassDef):
            yield from _outermost(child, f"{prefix}{child.name}.", child)
        elif not isinstance(child, ast.Lambda):
            yield from _outermost(child, prefix, scope)


def stub_transform(cut: Mapping[str, bool], added: Sequence[str]) -> Transform:
    """The transform for the tests' side: replaces the bodies of functions by calls to the candidate's side.

    Args:
        cut: key -> does it keep its parameters? Otherwise it accepts any arguments.
        added: keys of functions that the file lacks; a definition is added for each.
    """

    def transform(tree: ast.Module, module: str) -> ast.Module:
        scopes = {"": tree.body}
        for key, function, scope in list(functions(tree)):
            if key in cut:
                _replace_body(function, key, module, keep=cut[key])
            if isinstance(scope, ast.ClassDef):
                scopes[key.rpartition(".")[0]] = scope.body
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                scopes.setdefault(node.name, node.body)
        for key in added:
            owner, _, name = key.partition("#")[0].rpartition(".")
            if owner in scopes:
                stub = ast.parse(f"def {name}(): pass").body[0]
                assert isinstance(stub, ast.FunctionDef)
                _replace_body(stub, key, module, keep=False)
                scopes[owner].append(stub)
        return ast.fix_missing_locations(tree)

    return transform


def _replace_body(function: Definition, key: str, module: str, *, keep: bool) -> None:
    """Replace the body by a call to the other side."""
    documentation = function.body[:1] if ast.get_docstring(function, clean=False) is not None else []
    if not keep:
        function.args = ast.arguments([], [], ast.arg("arguments"), [], [], ast.arg("keywords"), [])
        positional, keywords = "arguments", "keywords"
    else:
        passed = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        passed += [f"*{function.args.vararg.arg}"] if function.args.vararg else []
        named = [f"{argument.arg!r}: {argument.arg}" for argument in function.args.kwonlyargs]
        named += [f"**{function.args.kwarg.arg}"] if function.args.kwarg else []
        positional, keywords = f"({', '.join(passed)}{',' if passed else ''})", f"{{{', '.join(named)}}}"
    call = f"{CROSSING}({module!r}, {key!r}, {positional}, {keywords})"
    if isinstance(function, ast.AsyncFunctionDef):
        call = f"{CROSSING}.asynchronous()"
    if _is_generator(function):
        statement = f"return (yield from {call.replace('(', '.iterate(', 1)})"
    else:
        statement = f"return {call}"
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


def registering_transform(keys: Sequence[str]) -> Transform:
    """The transform for the candidate's side: registers the functions when they are defined."""

    def transform(tree: ast.Module, module: str) -> ast.Module:
        for key, function, _ in list(functions(tree)):
            if key in keys:
                decorator = ast.parse(f"{CROSSING}.register({module!r}, {key!r})", mode="eval").body
                function.decorator_list.append(ast.copy_location(decorator, function))
        return ast.fix_missing_locations(tree)

    return transform


class FunctionRegistry:
    """The candidate's functions at the boundary."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], Any] = {}

    def register(self, module: str, key: str) -> Callable[[Any], Any]:
        def registered(function: Any) -> Any:
            self._functions[module, key] = function
            return function

        return registered

    def function(self, module: str, key: str) -> Any:
        """Raises UncrossableError: importing the module does not define it."""
        if (module, key) not in self._functions:
            value: Any = importlib.import_module(module)
            for name in () if (module, key) in self._functions else key.partition("#")[0].split("."):
                value = getattr(value, name, None)  # a patch may have moved or wrapped it
            self._functions.setdefault((module, key), value)
        if not callable(self._functions[module, key]):
            raise UncrossableError(f"{module} defines no {key.partition('#')[0]} on import")
        return self._functions[module, key]


class Finder(MetaPathFinder):
    """Loads some files with transformed syntax trees."""

    def __init__(self, root: str, transforms: Mapping[str, Transform], crossing: Any) -> None:
        """`transforms`: path relative to the root -> transform."""
        self._transforms = {os.path.realpath(f"{root}/{path}"): transform for path, transform in transforms.items()}
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
