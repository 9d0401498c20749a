"""Digest of the code that gathers evidence: evidence that other code gathered is never read again."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

GRAMMARS = tuple(f"tree-sitter-{name}" for name in ("python", "javascript", "typescript", "go", "rust", "java"))


def code_version() -> str:
    """Digest of the code that gathers evidence and of the tools that it uses: a part of every key in the store."""
    whole = hashlib.sha256()
    here = Path(__file__).parent.parent
    packages = ("static", "inside", "sandboxes", "execution", "verification")
    files = [path for package in packages for path in here.glob(f"{package}/**/*.py")]
    modules = ("task_curation/baseline", "scoring/probes", "scoring/verifier", "storage/serialisation")
    files += [here / f"{name}.py" for name in modules]
    for path in sorted(files):
        whole.update(path.relative_to(here).as_posix().encode() + path.read_bytes())
    for tool in ("ruff", "radon", "lizard", "complexipy", "tree-sitter", *GRAMMARS):
        try:
            whole.update(f"{tool}=={version(tool)}".encode())
        except PackageNotFoundError:
            whole.update(f"no {tool}".encode())
    return whole.hexdigest()
