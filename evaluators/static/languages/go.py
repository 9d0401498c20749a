"""Go: a package is a folder whose files share names; its import path is the module's path and the folder's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import tree_sitter_go
from tree_sitter import Node

from regrade.evaluators.static.languages.language import Import, Language, Names, Sources, plain_chain, text_of

PREFIX = "go:"
MANIFEST = "go.mod"
MAX_RECEIVER = 300
"""Characters of a receiver that are searched for its type, which is its end."""


def packages(sources: Sources) -> Mapping[str, str]:
    """Path -> key of its folder."""
    return {path: f"{PREFIX}{PurePosixPath(path).parent}/" for path in sources.texts}


def names(sources: Sources) -> Names:
    """Import path of every folder: the module that go.mod names, and the folder's path from there."""
    for path, key in sorted(packages(sources).items()):
        folder = PurePosixPath(path).parent
        for root in (folder, *folder.parents):
            manifest = sources.manifests.get(str(root / MANIFEST))
            module = re.search(r"^module\s+(\S+)", manifest, re.MULTILINE) if manifest is not None else None
            if module:
                relative = str(folder.relative_to(root))
                yield PREFIX + (module[1] if relative == "." else f"{module[1]}/{relative}"), key
                break


def absolute(name: str, path: str, own: str) -> str:  # noqa: ARG001 (every language has this signature)
    return PREFIX + name


def imported(node: Node) -> Iterator[Import]:
    path = text_of(node.child_by_field_name("path")).strip('"`')
    name = node.child_by_field_name("name")
    alias = text_of(name) if name is not None else re.sub(r"/v\d+$", "", path).rpartition("/")[2]
    if name is not None and name.type == "dot":
        yield Import(dotted=path, alias="*", bound=path, is_module=True)
    else:
        yield Import(dotted=path, alias="" if alias == "_" else alias, bound=path, is_module=True)


def name_of(node: Node) -> str:
    """The name of a definition; a method's name starts with the type of its receiver: `Shop.Add`."""
    name = text_of(node.child_by_field_name("name"))
    receiver = text_of(node.child_by_field_name("receiver"))[-MAX_RECEIVER:]
    owner = re.search(r"(\w+)\s*(\[[^\]]*\])?\s*\)$", receiver)
    return f"{owner[1]}.{name}" if owner else name


def targets(node: Node) -> list[str]:
    return [text_of(child) for child in node.children_by_field_name("name")]


def dotted(node: Node) -> str:
    if node.type == "qualified_type":
        return text_of(node)
    return text_of(node) if plain_chain(node, "selector_expression", "operand", ("identifier",)) else ""


GO = Language(
    name="Go",
    suffixes=(".go",),
    grammar=tree_sitter_go.language,
    symbols="""
    [(function_declaration) (method_declaration) (type_spec)] @definition
    [(const_spec) (var_spec)] @assignment
    """,
    uses="""
    (import_spec) @import
    (selector_expression field: (field_identifier) @attribute) @chain
    (qualified_type name: (type_identifier) @attribute) @chain
    (keyed_element key: (literal_element (identifier) @keyword))
    [(identifier) (type_identifier)] @name
    """,
    functions=frozenset({"function_declaration", "method_declaration"}),
    definitions=frozenset({"function_declaration", "method_declaration", "type_spec"}),
    comments=frozenset({"comment", "import_declaration"}),
    imported=imported,
    targets=targets,
    names=names,
    absolute=absolute,
    tests=r".*_test\.go",
    name_of=name_of,
    dotted=dotted,
    packages=packages,
)
