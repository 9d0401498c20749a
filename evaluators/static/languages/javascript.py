"""JavaScript and TypeScript: modules are files; `import` and `require` name them by relative paths."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import tree_sitter_javascript
import tree_sitter_typescript
from tree_sitter import Node

from regrade.evaluators.static.languages.language import Import, Language, Names, Sources, inside, plain_chain, text_of

PREFIX = "js:"
"""Distinguishes the names of these modules, which are paths, from those of other languages."""
SUFFIXES = (".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx")
DECLARATIONS = ("function_declaration", "generator_function_declaration", "method_definition")
FUNCTIONS = (*DECLARATIONS, "arrow_function", "function_expression")


def names(sources: Sources) -> Names:
    """Import names of a file: its path without suffix, with it, and with `.js` (compiled TypeScript); of an index file,
    also the path of its folder.
    """
    for path in sorted(sources.texts):
        stem = str(PurePosixPath(path).with_suffix(""))
        for name in (path, stem, f"{stem}.js"):
            yield PREFIX + name, path
        if PurePosixPath(stem).name == "index":
            yield PREFIX + str(PurePosixPath(stem).parent), path


def absolute(name: str, path: str, own: str) -> str:  # noqa: ARG001 (every language has this signature)
    if not name.startswith("."):
        return f"npm:{name}"  # a package
    return PREFIX + posixpath.normpath(posixpath.join(posixpath.dirname(path), name))


def imported(node: Node) -> Iterator[Import]:
    source = _source(node)
    if not source:
        return
    if node.type in ("variable_declarator", "call_expression"):
        yield from _required(node, source)
        return
    is_lazy = any(child.type == "type" for child in node.children)
    clause = next(
        (child for child in node.named_children if child.type.endswith(("_clause", "namespace_export"))), None
    )
    if clause is None:
        star = "*" if any(child.type == "*" for child in node.children) else ""
        yield Import(dotted=source, alias=star, bound=source, is_lazy=is_lazy, is_module=True)
    elif clause.type == "import_require_clause" or clause.type == "namespace_export":
        yield Import(
            dotted=source, alias=text_of(clause.named_children[0]), bound=source, is_lazy=is_lazy, is_module=True
        )
    else:
        yield from _named(clause, source, is_lazy)


def _named(clause: Node, source: str, is_lazy: bool) -> Iterator[Import]:
    for child in clause.named_children:
        if child.type == "identifier":
            yield Import(dotted=f"{source}.default", alias=text_of(child), bound=f"{source}.default", is_lazy=is_lazy)
        elif child.type == "namespace_import":
            yield Import(
                dotted=source, alias=text_of(child.named_children[0]), bound=source, is_lazy=is_lazy, is_module=True
            )
        elif child.type == "named_imports":
            yield from _named(child, source, is_lazy)
        elif child.type in ("import_specifier", "export_specifier"):
            name = text_of(child.child_by_field_name("name"))
            alias = text_of(child.child_by_field_name("alias")) or name
            yield Import(dotted=f"{source}.{name}", alias=alias, bound=f"{source}.{name}", is_lazy=is_lazy)


def _required(node: Node, source: str) -> Iterator[Import]:
    """`const a = require(...)`, `const {a, b: c} = require(...)`, and calls of `import` and `require` anywhere."""
    is_lazy, is_guarded = inside(node, *FUNCTIONS), inside(node, "try_statement")
    name = node.child_by_field_name("name") if node.type == "variable_declarator" else None
    if name is None or name.type != "object_pattern":
        yield Import(
            dotted=source, alias=text_of(name), bound=source, is_lazy=is_lazy, is_guarded=is_guarded, is_module=True
        )
        return
    for child in name.named_children:
        if child.type == "shorthand_property_identifier_pattern":
            key, alias = text_of(child), text_of(child)
        else:
            key, alias = text_of(child.child_by_field_name("key")), text_of(child.child_by_field_name("value"))
        if key and alias.isidentifier():
            dotted = f"{source}.{key}"
            yield Import(dotted=dotted, alias=alias, bound=dotted, is_lazy=is_lazy, is_guarded=is_guarded)


def _source(node: Node) -> str:
    """The module that an import names, with `/index` after a folder (`..`, `a/`); empty if the name is computed."""
    statement: Node | None = node
    if node.type == "variable_declarator":
        statement = node.child_by_field_name("value")
        while statement is not None and statement.type == "await_expression":
            statement = statement.named_children[0]
    if statement is not None and statement.type == "call_expression":
        arguments = statement.child_by_field_name("arguments")
        string = arguments.named_children[0] if arguments is not None and arguments.named_children else None
    elif statement is not None:
        clauses = (child for child in statement.named_children if child.type == "import_require_clause")
        clause = next(clauses, statement)
        string = clause.child_by_field_name("source")
    else:
        string = None
    if string is None or string.type != "string":
        return ""
    text = text_of(string)[1:-1]
    return f"{text.rstrip('/')}/index" if text.endswith((".", "/")) else text


def targets(node: Node) -> list[str]:
    if node.type == "variable_declarator":
        name = node.child_by_field_name("name")
        return [text_of(name)] if name is not None and name.type == "identifier" else []
    if node.type != "assignment_expression":
        return []
    left = node.child_by_field_name("left")
    owner = text_of(left.child_by_field_name("object")) if left is not None else ""
    return [text_of(left.child_by_field_name("property"))] if left and owner in ("exports", "module.exports") else []


def aliases(node: Node) -> Iterator[tuple[str, str]]:
    """`export default f`, `export {a as b}`, `module.exports = f` and `module.exports = {a, b: c}`."""
    if node.type == "assignment_expression":
        if text_of(node.child_by_field_name("left")) == "module.exports":
            yield from _exported(node.child_by_field_name("right"))
    elif node.child_by_field_name("source") is None:
        for specifier in (inner for child in node.named_children for inner in child.named_children):
            if specifier.type == "export_specifier":
                name = text_of(specifier.child_by_field_name("name"))
                yield text_of(specifier.child_by_field_name("alias")) or name, name
        if any(child.type == "default" for child in node.children):
            declared = node.child_by_field_name("declaration")
            name = text_of(declared.child_by_field_name("name")) if declared is not None else ""
            value = node.child_by_field_name("value")
            yield "default", name or (text_of(value) if value is not None and value.type == "identifier" else "")


def _exported(value: Node | None) -> Iterator[tuple[str, str]]:
    if value is None:
        return
    if value.type == "identifier":
        yield "default", text_of(value)
    elif value.type == "object":
        for child in value.named_children:
            if child.type == "shorthand_property_identifier":
                yield text_of(child), text_of(child)
            elif child.type == "pair":
                yield text_of(child.child_by_field_name("key")), text_of(child.child_by_field_name("value"))


def dotted(node: Node) -> str:
    if not plain_chain(node, "member_expression", "object", ("identifier",)):
        return ""
    return text_of(node).replace("?.", ".")


_SYMBOLS = """
[(function_declaration) (generator_function_declaration) (class_declaration) (method_definition)] @definition
[(variable_declarator) (assignment_expression left: (member_expression))] @assignment
"""
_TYPED_SYMBOLS = """
[(abstract_class_declaration) (interface_declaration) (enum_declaration) (type_alias_declaration)
 (internal_module)] @definition
"""
_USES = """
[(import_statement) (export_statement source: (string))] @import
((variable_declarator value: (call_expression function: (identifier) @_f)) @import (#eq? @_f "require"))
(variable_declarator value: (await_expression (call_expression function: (import)))) @import
(call_expression function: (import)) @import
((expression_statement (call_expression function: (identifier) @_g) @import) (#eq? @_g "require"))
[(export_statement) (assignment_expression)] @alias
(member_expression property: (property_identifier) @attribute) @chain
(pair key: (property_identifier) @keyword)
[(identifier) (shorthand_property_identifier)] @name
"""
_ROW: dict[str, Any] = {
    "functions": frozenset(FUNCTIONS),
    "definitions": frozenset({*FUNCTIONS, "class_declaration", "abstract_class_declaration", "interface_declaration"}),
    "comments": frozenset({"comment", "import_statement"}),
    "imported": imported,
    "targets": targets,
    "names": names,
    "absolute": absolute,
    "tests": r"(.*[._-])?(test|spec)s?\.[cm]?[jt]sx?|test[._-].*\.[cm]?[jt]sx?",
    "dotted": dotted,
    "aliases": aliases,
    "has_default": True,
}
JAVASCRIPT = Language(
    name="JavaScript",
    suffixes=SUFFIXES[:4],
    grammar=tree_sitter_javascript.language,
    symbols=_SYMBOLS,
    uses=_USES,
    **_ROW,
)
TYPESCRIPT = Language(
    name="TypeScript",
    suffixes=SUFFIXES[4:7],
    grammar=tree_sitter_typescript.language_typescript,
    symbols=_SYMBOLS + _TYPED_SYMBOLS,
    uses=_USES + "(type_identifier) @name\n",
    **_ROW,
)
TSX = Language(
    name="TSX",
    suffixes=SUFFIXES[7:],
    grammar=tree_sitter_typescript.language_tsx,
    symbols=_SYMBOLS + _TYPED_SYMBOLS,
    uses=_USES + "(type_identifier) @name\n",
    **_ROW,
)
