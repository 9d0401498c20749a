"""Java: files declare their package, and see its other classes without an import."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import tree_sitter_java
from tree_sitter import Node

from regrade.evaluators.static.languages.language import Import, Language, Names, Sources, plain_chain, text_of

PREFIX = "java:"
_DECLARED = re.compile(r"^[^\S\n]*package\s+([\w.]+)\s*;", re.MULTILINE)


def packages(sources: Sources) -> Mapping[str, str]:
    """Path -> key of the package that the file declares."""
    declarations = {path: _DECLARED.search(text) for path, text in sources.texts.items()}
    return {path: f"{PREFIX}{match[1] if match else ''}/" for path, match in declarations.items()}


def names(sources: Sources) -> Names:
    for key in sorted(set(packages(sources).values())):
        yield key.removesuffix("/"), key


def absolute(name: str, path: str, own: str) -> str:  # noqa: ARG001 (every language has this signature)
    return PREFIX + name


def imported(node: Node) -> Iterator[Import]:
    name = next((child for child in node.named_children if child.type in ("scoped_identifier", "identifier")), None)
    dotted = re.sub(r"\s", "", text_of(name))
    if any(child.type == "asterisk" for child in node.children):
        yield Import(dotted=dotted, alias="*", bound=dotted, is_module=True)
    elif dotted:
        yield Import(dotted=dotted, alias=dotted.rpartition(".")[2], bound=dotted)


def dotted(node: Node) -> str:
    """`a.b` of a field access; object and name of a method call."""
    if node.type == "method_invocation":
        owner = node.child_by_field_name("object")
        if owner is None or not plain_chain(owner, "field_access", "object", ("identifier",)):
            return ""
        return f"{text_of(owner)}.{text_of(node.child_by_field_name('name'))}"
    return text_of(node) if plain_chain(node, "field_access", "object", ("identifier",)) else ""


TYPES = ("class_declaration", "interface_declaration", "enum_declaration", "record_declaration")
FUNCTIONS = ("method_declaration", "constructor_declaration")
JAVA = Language(
    name="Java",
    suffixes=(".java",),
    grammar=tree_sitter_java.language,
    symbols="""
    [(class_declaration) (interface_declaration) (enum_declaration) (record_declaration)
     (annotation_type_declaration) (method_declaration) (constructor_declaration)] @definition
    """,
    uses="""
    (import_declaration) @import
    (field_access field: (identifier) @attribute) @chain
    (method_invocation object: (_) name: (identifier) @attribute) @chain
    [(identifier) (type_identifier)] @name
    """,
    functions=frozenset(FUNCTIONS),
    definitions=frozenset({*TYPES, *FUNCTIONS}),
    comments=frozenset({"line_comment", "block_comment", "import_declaration", "package_declaration"}),
    imported=imported,
    targets=lambda _: [],
    names=names,
    absolute=absolute,
    tests=r"(Test.*|.*(Test|Tests|IT))\.java",
    dotted=dotted,
    packages=packages,
)
