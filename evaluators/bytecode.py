"""Byte code of pristine trees, compiled once in a sandbox and shown to candidates read-only."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from regrade.datasets.tasks import Limits, TestSuite, Tree
from regrade.evaluators.sandboxes import Sandbox
from regrade.evaluators.workers import Request, Worker, remove


def fill(
    sandbox: Sandbox, python: Path, tree: Tree, suite: TestSuite, limits: Limits, folder: Path, scratch: Path, root_digest: str
) -> str:
    """Collect the tests of the pristine tree once with byte code written; the key of the byte code within `folder`.

    What a candidate changed is compiled anew: its modification time differs (see `workspaces`). The key covers all
    contents, so a file that changes in `tree.root` later gets other byte code.

    Raises:
        SandboxError, OSError, WorkerDied: see `Worker.run`.
    """
    key = hashlib.sha256(f"{root_digest}{suite!r}".encode()).hexdigest()[:24]
    if (folder / key).exists():
        return key
    making = folder / f".making-{os.getpid()}-{secrets.token_hex(4)}"
    (making / key).mkdir(parents=True)
    for path in (making, making / key):
        path.chmod(0o777)
    workplace = scratch / f"bytecode-{secrets.token_hex(4)}"
    workplace.mkdir()
    try:
        with Worker(sandbox, python, workplace, making, writable_bytecode=True, limits=limits) as worker:
            worker.run(Tree(tree.root), Request(suite, limits, options=("--collect-only",)), key)
        try:
            (making / key).rename(folder / key)
        except OSError:
            if not (folder / key).exists():  # another process was not faster: this is an error
                raise
    finally:
        remove(making)
        remove(workplace)
    return key
