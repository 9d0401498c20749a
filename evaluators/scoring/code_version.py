"""Digest of the code that gathers evidence: evidence gathered by other code is never read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from regrade.datasets import tasks
from regrade.rewards import assurance_level, evidence

EVALUATORS = Path(__file__).parents[1]
JUDGING = frozenset({"analysis", "attribution", "evaluation", "hardening"})
"""Sub-packages of `evaluators` that judge evidence and gather none: the digest covers all others."""
LANGUAGES = ("python", "javascript", "typescript", "go", "rust", "java")
TOOLS = (
    "complexipy",
    "docker",
    "hypothesis",
    "lizard",
    "msgspec",
    "pytest",
    "radon",
    "pyseccomp",
    "ruff",
    "tenacity",
    "tree-sitter",
    *(f"tree-sitter-{language}" for language in LANGUAGES),
)
"""Distributions that this code imports or runs."""


def evidence_code() -> Iterator[Path]:
    """The files of the code that proposes tasks, applies patches, runs tests and reads code."""
    yield from Path(tasks.__file__).parent.rglob("*.py")
    yield Path(assurance_level.__file__)
    yield Path(evidence.__file__)
    for path in EVALUATORS.rglob("*.py"):
        if path.relative_to(EVALUATORS).parts[0] not in JUDGING:
            yield path


@cache
def code_version() -> str:
    """Digest of the code that gathers evidence and of its tools: a part of every key in the store."""
    whole = hashlib.sha256()
    root = EVALUATORS.parent
    for path in sorted(evidence_code()):
        whole.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    for tool in TOOLS:
        try:
            whole.update(f"{tool}=={version(tool)}".encode())
        except PackageNotFoundError:
            whole.update(f"no {tool}".encode())
    return whole.hexdigest()
