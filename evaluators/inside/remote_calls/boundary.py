"""The functions at the boundary to the candidate's code: their keys, and modules loaded with these functions replaced.

In the tests' process the body of such a function calls the candidate's process. There, the function is found by its
name, or registered by its key below the decorators that the tests' process applies (its `PlainForm`).
"""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

from regrade.evaluators.inside.remote_calls.peer import Peer
from regrade.evaluators.inside.remote_calls.plain_values import UncrossableError

CROSSING = "__regrade_crossing__"
BINDINGS: Mapping[str, Any] = {"static": staticmethod, "class": classmethod, "property": property}
Definition = ast.FunctionDef | ast.AsyncFunctionDef
PlainForm = Mapping[str, Any]
"""The fields of `regrade.evaluators.verification.function_forms.FunctionForm`."""
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


def stub_transform(cut: Mapping[str, PlainForm], added: Mapping[str, PlainForm]) -> Transform:
    """The transform for the tests' side: replaces the bodies of functions by calls to the candidate's side.

    Args:
        cut: key -> form.
        added: the same for functions that the file lacks; a definition is added for each.
    """

    def transform(tree: ast.Module, module: str) -> ast.Module:
        scopes = {"": tree.body}
        again: list[tuple[list[ast.stmt], str]] = []
        for key, function, scope in list(functions(tree)):
            if key in cut:
                _replace_body(function, key, module, cut[key])
                if cut[key]["again"]:
                    again.append((scope.body, key))
            if isinstance(scope, ast.ClassDef):
                scopes[key.rpartition(".")[0]] = scope.body
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                scopes.setdefault(node.name, node.body)
        for body, key in again:
            body.append(_stub(key, module, {**cut[key], "parameters": False}))
        for key, form in added.items():
            owner = key.partition("#")[0].rpartition(".")[0]
            if owner in scopes:
                scopes[owner].append(_stub(key, module, form))
        return ast.fix_missing_locations(tree)

    return transform


def _stub(key: str, module: str, form: PlainForm) -> ast.stmt:
    """A definition of a function that the file lacks."""
    name = key.partition("#")[0].rpartition(".")[2]
    stub = ast.parse(f"def {name}(): pass").body[0]
    assert isinstance(stub, ast.FunctionDef)
    _replace_body(stub, key, module, form)
    return stub


def _replace_body(function: Definition, key: str, module: str, form: PlainForm) -> None:
    """Replace the body by a call to the other side, and the decorators that the other side applies."""
    documentation = function.body[:1] if ast.get_docstring(function, clean=False) is not None else []
    del function.decorator_list[form["kept"] :]
    if form["binding"] in ("setter", "deleter") and not function.decorator_list:
        function.decorator_list.append(_expression(f"{function.name}.{form['binding']}", function))
    elif form["descriptor"]:
        function.decorator_list.append(_expression(f"{CROSSING}.bindings[{form['binding']!r}]", function))
    if not form["parameters"]:
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


def _expression(text: str, function: Definition) -> ast.expr:
    """At the place of the function, so that its lines in a traceback stay."""
    expression = ast.parse(text, mode="eval").body
    for node in ast.walk(expression):
        ast.copy_location(node, function)
    return expression


def _is_generator(function: Definition) -> bool:
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, Definition | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
    return False


class FunctionRegistry:
    """The candidate's functions at the boundary."""

    def __init__(
        self, forms: Mapping[str, Mapping[str, PlainForm]], computed: Mapping[str, Mapping[str, list[str]]], peer: Peer
    ) -> None:
        """
        Args:
            forms: path -> key -> form.
            computed: path -> class -> its properties that were attributes at the base.
        """
        self._forms = forms
        self._computed = computed
        self._peer = peer
        self._paths: dict[str, str] = {}
        self._functions: dict[tuple[str, str], Any] = {}

    def transform_of(self, path: str) -> Transform:
        """The transform for a file of the candidate's: registers functions that are not found by name when they are
        defined, below the decorators that the tests' side applies."""

        def transform(tree: ast.Module, module: str) -> ast.Module:
            self._paths[module] = path
            forms = self._forms.get(path, {})
            for kind, names in self._computed.get(path, {}).items():
                self._peer.computed_by_class[module, kind] = names
            for key, function, _ in list(functions(tree)):
                if key in forms and not forms[key]["by_name"]:
                    place = forms[key]["kept"] + forms[key]["descriptor"]
                    decorator = _expression(f"{CROSSING}.register({module!r}, {key!r})", function)
                    function.decorator_list.insert(place, decorator)
            return ast.fix_missing_locations(tree)

        return transform

    def register(self, module: str, key: str) -> Callable[[Any], Any]:
        def registered(function: Any) -> Any:
            self._functions[module, key] = function
            return function

        return registered

    def _binding(self, module: str, key: str) -> str:
        """That of the module's file, or, of a module in another file than at the base, of any with such a function."""
        files = (self._forms.get(self._paths.get(module, ""), {}), *self._forms.values())
        return next((str(forms[key]["binding"]) for forms in files if key in forms), "function")

    def call(self, module: str, key: str, positional: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Raises UncrossableError: importing the module does not define the function."""
        imported: Any = importlib.import_module(module)
        if (module, key) in self._functions and not (positional and self._peer.is_extended(positional[0])):
            return self._functions[module, key](*positional, **keywords)
        *owners, name = key.partition("#")[0].split(".")
        owner = imported
        for part in owners:
            owner = getattr(owner, part, None)
        binding = self._binding(module, key)
        if owner is None or (binding in ("function", "static") and not callable(getattr(owner, name, None))):
            raise UncrossableError(f"{module} defines no {key.partition('#')[0]} on import")
        if binding in ("function", "static") or not positional:
            return getattr(owner, name)(*positional, **keywords)
        first, *rest = positional
        if binding == "class":
            return getattr(first, name)(*rest, **keywords)
        if binding == "setter":
            return setattr(first, name, *rest)
        if binding == "deleter":
            return delattr(first, name)
        # The own class of an extended instance may replace the method.
        value = getattr(first, name) if self._peer.is_extended(first) else _attribute_from(owner, first, name)
        return value if binding == "property" else value(*rest, **keywords)


def _attribute_from(owner: Any, instance: Any, name: str) -> Any:
    """The attribute as a class among those of the instance gives it, past those that extend this class."""
    if name == "__new__" or not isinstance(owner, type) or not isinstance(instance, owner):
        return functools.partial(getattr(owner, name), instance)
    kinds = type(instance).__mro__
    for kind in kinds[kinds.index(owner) :]:
        if name in vars(kind):
            member = vars(kind)[name]
            bind = getattr(type(member), "__get__", None)
            return member if bind is None else bind(member, instance, type(instance))
    return getattr(instance, name)  # a value of the instance, or of a `__getattr__`


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
        """In front of all others, also if it was installed before."""
        sys.meta_path[:] = [self, *(finder for finder in sys.meta_path if finder is not self)]


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
