"""Tests that stand in the same file as the code they test, as in Rust: they come from the pristine tree as well."""

from __future__ import annotations

from tree_sitter import Node

from regrade.evaluators.static.dependencies.facts import syntax_tree
from regrade.evaluators.static.languages.rust import RUST


def with_pristine_tests(pristine: str | None, patched: str) -> str:
    """The patched text of a Rust file with the pristine file's `#[cfg(test)]` items in place of its own.

    They move to the end of the file, where Rust reads them just the same.
    """
    was, now = test_items(pristine or ""), test_items(patched)
    if was == now:
        return patched
    for item in now:
        patched = patched.replace(item, "", 1)
    return "\n".join((patched.rstrip("\n"), "", *was, "")) if was else patched


def test_items(text: str) -> list[str]:
    """The source of each top-level item under `#[cfg(test)]`, attributes included."""
    source = text.encode("utf-8", "surrogateescape")
    found: list[str] = []
    first: Node | None = None
    is_test = False
    for node in syntax_tree(text, RUST).root_node.children:
        if node.type == "attribute_item":
            first = first or node
            is_test = is_test or b"cfg(test)" in b"".join((node.text or b"").split())
            continue
        if is_test and first is not None:
            found.append(source[first.start_byte : node.end_byte].decode("utf-8", "surrogateescape"))
        first, is_test = None, False
    return found


test_items.__test__ = False  # type: ignore[attr-defined]  # not a test
