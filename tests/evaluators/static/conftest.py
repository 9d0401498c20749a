"""Real patches on real trees: written to disk, applied strictly by git as in the scorer, then probed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, TestSuite, Tree
from regrade.evaluators.execution.workspaces import prepare


@dataclass(frozen=True)
class Patched:
    """A patch on a tree, ready for every static probe."""

    before: Tree
    after: Tree
    patch: Patch
    task: Task

    def probe(self, module: Any) -> Any:
        return module.probe(self.before, self.after, self.patch, self.task)


@pytest.fixture
def patched(tmp_path: Path) -> Callable[..., Patched]:
    """`patched(files, changes)`: path -> text or bytes of the files, path -> new text of some of them (None: deleted).

    `diff` is the text of the patch, instead of the changes.
    """

    def make(
        files: Mapping[str, str | bytes],
        changes: Mapping[str, str | None] | None = None,
        *,
        diff: str = "",
        python_path: tuple[str, ...] = (".",),
    ) -> Patched:
        for path, content in files.items():
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        tree = Tree(tmp_path)
        task = Task(
            id="task",
            repository="repository",
            base=tree,
            instruction="",
            fail_to_pass=(),
            pass_to_pass=(),
            suite=TestSuite(python_path=python_path),
        )
        changed = dict(changes or {})
        old = {path: tree.read(path) for path in changed if path in files}
        new = {path: text for path, text in changed.items() if text is not None}
        patch = Patch(diff) if diff else Patch.between(old, new)
        workspace = prepare(task, patch)
        return Patched(workspace.before, workspace.after, patch, task)

    return make
