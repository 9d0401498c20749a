"""How the functions at the boundary are called from the tests' process, whatever a patch made of them.

A patch may fix a function by a decorator, by binding its name again below it, or by putting something else in its
place. So a function that the base neither decorates nor binds again is what its name leads to after the import of the
patched module. Where the base does either, the tests' process applies the decorators that both versions have, and the
candidate's process the others.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from regrade.evaluators.inside.remote_calls.boundary import BINDINGS, functions

DESCRIPTORS = {
    "staticmethod": "static",
    "classmethod": "class",
    "property": "property",
    "cached_property": "property",
    "functools.cached_property": "property",
}
"""Decorators of Python that decide what a function receives -> the binding."""


@dataclass(frozen=True)
class FunctionForm:
    """How one function crosses."""

    parameters: bool
    """Does the replaced body keep the base's parameters? Otherwise it accepts any arguments."""
    binding: str
    """What the replaced body receives: `function` (the arguments), `method` (the instance first), `static`, `class`,
    `property`, `setter` or `deleter`."""
    by_name: bool
    """Is it what its name leads to? Otherwise it is registered when it is defined."""
    kept: int = 0
    """Number of its outermost decorators that the tests' process applies."""
    descriptor: bool = False
    """Does the tests' process apply the decorator of the binding, besides the kept ones?"""
    again: bool = False
    """Does the base bind the name again? Then the tests' process does so as well, at the end of the scope."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class FunctionFacts(NamedTuple):
    """What a file says about one function."""

    arguments: str
    decorators: tuple[str, ...]
    in_class: bool
    bindings: tuple[str, ...]
    """Other statements of its scope that bind its name, definitions of functions excepted."""
    is_single: bool
    """Is there no other definition of a function of its name?"""

    @property
    def is_plain(self) -> bool:
        return not self.decorators and not self.bindings and self.is_single


def function_facts(tree: ast.Module) -> dict[str, FunctionFacts]:
    """Key -> facts."""
    found = list(functions(tree))
    bound: dict[int, dict[str, list[str]]] = {}
    names = Counter(key.partition("#")[0] for key, _, _ in found)
    last_names = frozenset(function.name for _, function, _ in found)
    facts = {}
    for key, function, scope in found:
        if id(scope) not in bound:
            bound[id(scope)] = _bindings(scope, last_names)
        facts[key] = FunctionFacts(
            arguments=ast.dump(function.args),
            decorators=tuple(ast.unparse(decorator) for decorator in function.decorator_list),
            in_class=isinstance(scope, ast.ClassDef),
            bindings=tuple(bound[id(scope)].get(function.name, ())),
            is_single=names[key.partition("#")[0]] == 1,
        )
    return facts


def form_of(base: FunctionFacts | None, patched: FunctionFacts | None) -> FunctionForm:
    """The form of a function.

    Args:
        base: None: the patch adds it.
        patched: None: the patch has no definition of it.
    """
    known = base or patched
    assert known is not None
    default = "method" if known.in_class else "function"
    if base is None or patched is None or base.is_plain or base.bindings != patched.bindings:
        binding = _binding(patched) or (_binding(base) if patched is None or not patched.decorators else "") or default
        parameters = base is not None and patched is not None and base[:4] == patched[:4]
        again = base is not None and bool(base.bindings)
        return FunctionForm(parameters, binding, by_name=True, descriptor=binding in BINDINGS, again=again)
    kept = 0
    for one, other in zip(base.decorators, patched.decorators, strict=False):
        if one != other:
            break
        kept += 1
    binding = _binding(patched) or default
    parameters = base.arguments == patched.arguments and base.decorators == patched.decorators
    return FunctionForm(parameters, binding, by_name=False, kept=kept, descriptor=not kept and binding in BINDINGS)


def _binding(facts: FunctionFacts | None) -> str:
    """The binding by the outermost decorator; empty: it is none that decides."""
    if facts is None or not facts.in_class or not facts.decorators:
        return ""
    first = facts.decorators[0]
    last = first.rpartition(".")[2]
    return DESCRIPTORS.get(first, last if last in ("setter", "deleter") else "")


def names_bound(module: ast.Module) -> frozenset[str] | None:
    """The names that a module defines; None: all that are asked for, by a `__getattr__` or an import of `*`."""
    names = {name for statement in module.body for name in _bound_names(statement)}
    names |= {function.name for _, function, scope in functions(module) if scope is module}
    return None if names & {"*", "__getattr__"} else frozenset(names)


def _bindings(scope: ast.Module | ast.ClassDef, names: frozenset[str]) -> dict[str, list[str]]:
    """Of these names: name -> the statements of the scope that bind it, without definitions of functions."""
    found: dict[str, list[str]] = {}
    waiting: list[ast.AST] = list(scope.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        # The blocks of a compound statement may hold definitions of functions: only what binds the name counts.
        inner = (
            [] if isinstance(node, ast.ClassDef) else [each for each in ast.iter_child_nodes(node) if _is_block(each)]
        )
        waiting += inner
        whole = not inner and not isinstance(node, ast.ClassDef)
        bound = {name for child in ast.iter_child_nodes(node) if not _is_block(child) for name in _bound_names(child)}
        for name in names.intersection(_bound_names(node) if not inner else bound):
            found.setdefault(name, []).append(ast.dump(node) if whole else f"{type(node).__name__} {name}")
    return found


def _is_block(node: ast.AST) -> bool:
    return isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case)


def _bound_names(node: ast.AST) -> Iterator[str]:
    """Names that a statement binds in its scope, not those of functions defined inside of it."""
    if isinstance(node, ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
        yield node.id
    elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _bound_names(child)


def receiving(form: FunctionForm, recorded: FunctionForm) -> FunctionForm:
    """The form for calls that were recorded with another form of the function."""
    if form.binding == recorded.binding:
        return form
    return replace(form, binding=recorded.binding, by_name=True, kept=0, descriptor=recorded.binding in BINDINGS)
