"""Parts of a node id: `file::Class::test[parameters]` of a test, `file::qualified.name` of a function."""

from __future__ import annotations


def file_of(node_id: str) -> str:
    """The file, relative to the repository."""
    return node_id.partition("::")[0]


def function_of(node_id: str) -> str:
    """The id without the parameters of a test."""
    return node_id.partition("[")[0]
