"""Python: modules are files, with dotted names from the folders on `python_path`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import tree_sitter_python
from tree_sitter import Node

from regrade.evaluators.static.languages.language import Import, Language, Names, Sources, plain_chain, text_of


def names(sources: Sources) -> Names:
    """Dotted names of modules, first from the `python_path` folders, then from the root of the tree."""
    for root in dict.fromkeys((*sources.python_path, ".")):
        for path in sorted(sources.texts):
            name = _name(path, root)
            if name:
                yield name, path


def _name(path: str, root: str) -> str:
    pure = PurePosixPath(path)
    if root != ".":
        if not pure.is_relative_to(root):
            return ""
        pure = pure.relative_to(root)
    parts = pure.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def absolute(name: str, path: str, own: str) -> str:
    """The absolute name of a relative import; other names unchanged."""
    relative = name.lstrip(".")
    level = len(name) - len(relative)
    if not level:
        return name
    package = own.split(".")
    if PurePosixPath(path).name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - level + 1]
    return ".".join([*package, *([relative] if relative else [])])


def beside(name: str, own: str) -> str:
    """The name beside the file: the folder of a script, or of a test outside a package, is on sys.path."""
    return ".".join([*own.split(".")[:-1], name])


def imported(node: Node) -> Iterator[Import]:
    is_lazy, is_guarded = _context(node)
    module = node.child_by_field_name("module_name")
    base = re.sub(r"\s", "", text_of(module)) if module is not None else ""
    if any(child.type == "wildcard_import" for child in node.children):
        yield Import(dotted=base, alias="*", bound=base, is_lazy=is_lazy, is_guarded=is_guarded, is_module=True)
    for child in node.children_by_field_name("name"):
        renamed = child.child_by_field_name("alias")
        name = text_of(child.child_by_field_name("name") if renamed is not None else child)
        if module is None:
            first = name.partition(".")[0]
            alias, bound = (text_of(renamed), name) if renamed is not None else (first, first)
            yield Import(dotted=name, alias=alias, bound=bound, is_lazy=is_lazy, is_guarded=is_guarded, is_module=True)
        else:
            dotted = base + name if base.endswith(".") else f"{base}.{name}"
            alias = text_of(renamed) if renamed is not None else name
            yield Import(dotted=dotted, alias=alias, bound=dotted, is_lazy=is_lazy, is_guarded=is_guarded)


def _context(node: Node) -> tuple[bool, bool]:
    """(is the import lazy?, is it guarded?), see `Import`."""
    is_lazy = is_guarded = False
    parent = node.parent
    while parent is not None:
        condition = text_of(parent.child_by_field_name("condition")) if parent.type == "if_statement" else ""
        if parent.type == "function_definition" or "TYPE_CHECKING" in condition:
            is_lazy = True
        elif parent.type == "try_statement":
            is_guarded = True
        parent = parent.parent
    return is_lazy, is_guarded


def targets(assignment: Node) -> list[str]:
    left = assignment.child_by_field_name("left")
    if left is None:
        return []
    if left.type == "identifier":
        return [text_of(left)]
    if left.type in ("pattern_list", "tuple_pattern"):
        return [text_of(child) for child in left.named_children if child.type == "identifier"]
    return []


def dotted(node: Node) -> str:
    return text_of(node) if plain_chain(node, "attribute", "object", ("identifier",)) else ""


PYTHON = Language(
    name="Python",
    suffixes=(".py",),
    grammar=tree_sitter_python.language,
    symbols="""
    [(function_definition) (class_definition)] @definition
    (assignment) @assignment
    """,
    uses="""
    [(import_statement) (import_from_statement)] @import
    (attribute attribute: (identifier) @attribute) @chain
    (keyword_argument name: (identifier) @keyword)
    (identifier) @name
    """,
    functions=frozenset({"function_definition"}),
    definitions=frozenset({"function_definition", "class_definition"}),
    comments=frozenset({"comment", "import_statement", "import_from_statement", "future_import_statement"}),
    imported=imported,
    targets=targets,
    names=names,
    absolute=absolute,
    beside=beside,
    tests=r"(test_.*|.*_tests?|tests?)\.py",
    dotted=dotted,
    has_docstrings=True,
    block="block",
)
