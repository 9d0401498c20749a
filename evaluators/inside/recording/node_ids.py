"""Parts of a node id: a copy of `regrade.datasets.node_ids`, which is not in the sandbox."""

from __future__ import annotations


def file_of(node_id: str) -> str:
    """The file of a test."""
    return node_id.partition("::")[0]
