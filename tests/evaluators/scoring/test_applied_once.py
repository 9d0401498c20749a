"""`git apply` runs once for all evidence of a patch, and once for the reference of a task, in whichever process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, TestSuite, Tree
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.scoring.probes import STATIC
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.scoring.static_workers import StaticWorkers
from regrade.rewards.evidence import ComplexityDelta, Diff, Integrity

TEXT = "def f(x):\n    return x\n"
TESTS = "def test():\n    assert True\n"


@pytest.fixture
def pool() -> Iterator[StaticWorkers]:
    workers = StaticWorkers()
    yield workers
    workers.close()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one line for each run of git."""
    log, real = tmp_path / "runs", shutil.which("git")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "git"
    program.write_text(f'#!/bin/sh\necho run >> {log}\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    log.write_text("")
    return log


def task_of(root: Path, **more: object) -> Task:
    root.mkdir()
    (root / "a.py").write_text(TEXT)
    (root / "test_a.py").write_text(TESTS)
    return Task(
        id="t", repository="r", base=Tree(root), instruction="", fail_to_pass=(), pass_to_pass=(), suite=TestSuite(),
        reference=Patch.between({"a.py": TEXT}, {"a.py": TEXT + "\n\n\ny = 1\n"}), **more,
    )  # fmt: skip


def evidence_of(pool: StaticWorkers, task: Task, patch: Patch) -> dict[type, object]:
    workspace = prepare(task, patch)
    return {kind: pool.evidence(kind, workspace.before, workspace.after, patch, task) for kind in STATIC}


def test_all_evidence_of_a_patch_takes_one_run_of_git(pool: StaticWorkers, runs: Path, tmp_path: Path) -> None:
    task = task_of(tmp_path / "repo")
    for number in range(3):
        patch = Patch.between(
            {"a.py": TEXT, "test_a.py": TESTS},
            {"a.py": TEXT.replace("return x", f"return x if x else {number}"), "test_a.py": ""},
        )
        found = evidence_of(pool, task, patch)
        assert found[Diff] == Diff(1, 1, ("a.py",), reference_lines=4)
        assert found[Integrity] == Integrity((), ("test_a.py",))
        assert isinstance(complexity := found[ComplexityDelta], ComplexityDelta)
        assert (complexity.growth, complexity.reference_growth) == (2, 0)
        assert len(runs.read_text().split()) == 1 + number + 1


def test_tasks_with_the_same_patch_share_no_outcome(pool: StaticWorkers, tmp_path: Path) -> None:
    """One text against two bases, in one process: other files, other lines."""
    task = task_of(tmp_path / "repo")
    patch = Patch("--- a/a.py\n+++ b/a.py\n@@ -2,3 +2,4 @@\n def f(x):\n     return x\n+    # a line\n # end\n")
    texts = [
        "# one\n" + TEXT + "# end\n",
        "# two\n\n\n" + TEXT + "# end\n",
        "# three\ndef g(x):\n    return x\n# end\n",
    ]
    tasks = [replace(task, base=task.base.with_files({"a.py": text})) for text in texts]
    for _ in range(2):
        for number, text in enumerate(texts[:2]):
            assert prepare(tasks[number], patch).after.read("a.py") == text.replace("# end", "    # a line\n# end")
            assert evidence_of(pool, tasks[number], patch)[Diff] == Diff(1, 0, ("a.py",))
        other = tasks[2]
        with pytest.raises(PatchError):
            prepare(other, patch)
        assert pool.evidence(Integrity, other.base, other.base, patch, other) == Integrity(())


def test_stored_evidence_belongs_to_one_base(tmp_path: Path) -> None:
    """One text against two bases, of one folder or of two, never shares evidence; two texts with one outcome agree."""
    task = task_of(tmp_path / "repo")
    other = task_of(tmp_path / "other")
    (other.base.root / "a.py").write_text(TEXT.replace("return x", "return  x"))
    tasks = [task, replace(task, base=task.base.with_files({"a.py": TEXT.replace("(x)", "(x, y)")})), other]
    short = Patch("--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,3 @@\n def f(x):\n+    x = +x\n     return x\n")
    mail = Patch(f"Subject: fix\n\n---\n{short.text}-- \n2.39\n")
    for _ in range(2):  # the second scorer reads what the first stored
        with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
            found = scorer.gather([(each, patch) for patch in (short, mail) for each in tasks], {Diff})
            lines = [evidence.records[Diff].added_lines for evidence in found]
            assert lines == [1, 0, 0, 1, 0, 0]  # the other bases have no such lines
