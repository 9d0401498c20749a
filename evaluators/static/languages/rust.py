"""Rust: the modules of a crate are its files, named from `crate`; names of other crates start with the crate."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import PurePosixPath

import tree_sitter_rust
from tree_sitter import Node

from regrade.evaluators.static.languages.language import Import, Language, Names, Sources, inside, text_of

PREFIX = "rust:"
MANIFEST = "Cargo.toml"
ROOTS = ("lib", "main")
MAX_PATH = 500
"""Most bytes of a path: each part of a path is a path, so that long ones would take quadratic time."""


def names(sources: Sources) -> Names:
    """`CRATE`, `CRATE.module`, ...; a file outside `src` (a test, an example, a program) is a crate of its own."""
    manifests = ((PurePosixPath(path), text) for path, text in sources.manifests.items())
    crates = {str(path.parent): _crate(text, path) for path, text in manifests if path.name == MANIFEST}
    for path in sorted(sources.texts, key=lambda path: (PurePosixPath(path).stem != ROOTS[0], path)):
        folder = next((str(parent) for parent in PurePosixPath(path).parents if str(parent) in crates), None)
        if folder is None:
            continue
        parts = PurePosixPath(path).relative_to(folder).with_suffix("").parts
        if parts[0] == "src" and parts[1:2] != ("bin",):
            inner = parts[1:-1] if parts[-1] == "mod" or parts[1:] in {(root,) for root in ROOTS} else parts[1:]
            yield PREFIX + ".".join((crates[folder], *inner)), path
        else:
            yield PREFIX + "/".join((crates[folder], *parts)), path


def _crate(manifest: str, path: PurePosixPath) -> str:
    try:
        name = str(tomllib.loads(manifest)["package"]["name"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        name = path.parent.name or "crate"
    return name.replace("-", "_")


def absolute(name: str, path: str, own: str) -> str:  # noqa: ARG001 (every language has this signature)
    """The name with `crate`, `self` and `super` resolved; other names start with a crate or a submodule."""
    module = own.removeprefix(PREFIX)
    first, _, rest = name.partition(".")
    if first == "crate":
        module = module.partition(".")[0]
    elif first == "super":
        while first == "super":
            module = module.rpartition(".")[0] or module
            first, _, rest = rest.partition(".")
        rest = ".".join(filter(None, (first, rest)))
    elif first != "self":
        return PREFIX + name
    return PREFIX + ".".join(filter(None, (module, rest)))


def beside(name: str, own: str) -> str:
    """The name of a submodule."""
    return f"{own}.{name}"


def imported(node: Node) -> Iterator[Import]:
    if node.type == "mod_item":
        if node.child_by_field_name("body") is None:
            name = text_of(node.child_by_field_name("name"))
            yield Import(dotted=f"self.{name}", alias=name, bound=f"self.{name}", is_module=True)
        return
    argument = node.child_by_field_name("argument")
    if argument is not None:
        yield from _used(argument, "", inside(node, "function_item"))


def _used(node: Node, prefix: str, is_lazy: bool) -> Iterator[Import]:
    """The leaves of a tree such as `a::{b, c as d, e::*}`."""
    if node.type == "scoped_use_list":
        inner = _joined(prefix, text_of(node.child_by_field_name("path")))
        for child in _children(node.child_by_field_name("list")):
            yield from _used(child, inner, is_lazy)
    elif node.type == "use_list":
        for child in node.named_children:
            yield from _used(child, prefix, is_lazy)
    elif node.type == "use_as_clause":
        dotted = _joined(prefix, text_of(node.child_by_field_name("path")))
        yield Import(dotted=dotted, alias=text_of(node.child_by_field_name("alias")), bound=dotted, is_lazy=is_lazy)
    elif node.type == "use_wildcard":
        dotted = _joined(prefix, text_of(node.named_children[0]) if node.named_children else "")
        yield Import(dotted=dotted, alias="*", bound=dotted, is_lazy=is_lazy, is_module=True)
    elif node.type == "self" and prefix:
        yield Import(dotted=prefix, alias=prefix.rpartition(".")[2], bound=prefix, is_lazy=is_lazy)
    else:
        dotted = _joined(prefix, text_of(node))
        yield Import(dotted=dotted, alias=dotted.rpartition(".")[2], bound=dotted, is_lazy=is_lazy)


def _children(node: Node | None) -> list[Node]:
    return node.named_children if node is not None else []


def _joined(prefix: str, path: str) -> str:
    return ".".join(filter(None, (prefix, re.sub(r"\s*::\s*", ".", path))))


def name_of(node: Node) -> str:
    """The name of a definition; of an `impl` block, the name of its type."""
    if node.type != "impl_item":
        return text_of(node.child_by_field_name("name"))
    return re.sub(r"<.*", "", text_of(node.child_by_field_name("type")), flags=re.DOTALL).rpartition("::")[2]


def targets(node: Node) -> list[str]:
    return [text_of(node.child_by_field_name("name"))]


def dotted(node: Node) -> str:
    parent = node.parent
    if parent is not None and parent.type == "token_tree":
        return _in_macro(node)
    if node.end_byte - node.start_byte > MAX_PATH:
        return ""
    text = re.sub(r"\s|<.*?>", "", text_of(node))
    return text.replace("::", ".") if re.fullmatch(r"\w+(::\w+)+", text) else ""


def _in_macro(first: Node) -> str:
    """The path that starts with a name among the arguments of a macro, which the grammar does not parse."""
    names: list[str] = []
    previous, node = first.prev_sibling, first
    if previous is not None and previous.type == "::":
        return ""  # the middle of a path
    while True:
        names.append(text_of(node))
        separator = node.next_sibling
        following = separator.next_sibling if separator is not None and separator.type == "::" else None
        if following is None or following.type != "identifier":
            return ".".join(names) if len(names) > 1 else ""
        node = following


RUST = Language(
    name="Rust",
    suffixes=(".rs",),
    grammar=tree_sitter_rust.language,
    symbols="""
    [(function_item) (function_signature_item) (struct_item) (enum_item) (union_item) (trait_item) (impl_item)
     (type_item) (macro_definition) (mod_item body: (declaration_list))] @definition
    [(const_item) (static_item)] @assignment
    """,
    uses="""
    [(use_declaration) (mod_item)] @import
    (scoped_identifier name: (identifier) @attribute) @chain
    (scoped_type_identifier name: (type_identifier) @attribute) @chain
    (token_tree [(identifier) (crate) (self) (super)] @chain . "::" . (identifier) @attribute)
    (field_expression field: (field_identifier) @attribute)
    [(identifier) (type_identifier)] @name
    """,
    functions=frozenset({"function_item", "macro_definition"}),
    definitions=frozenset(
        {"function_item", "function_signature_item", "struct_item", "enum_item", "trait_item", "type_item"}
    ),
    comments=frozenset({"line_comment", "block_comment", "use_declaration"}),
    imported=imported,
    targets=targets,
    names=names,
    absolute=absolute,
    beside=beside,
    tests=r"(test_.*|.*_tests?|tests?)\.rs",
    test_folders=frozenset({"tests"}),
    rooted=frozenset({"crate", "self", "super"}),
    is_rooted_anywhere=True,
    name_of=name_of,
    dotted=dotted,
)
