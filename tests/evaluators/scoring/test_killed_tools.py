"""A static process, git or ruff that is killed from outside is never the patch's doing; one beyond its own limits is."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regrade.datasets import applying, limited_processes
from regrade.datasets.applying import apply_patch
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.sandboxes import SandboxError
from regrade.evaluators.scoring import gatherer, static_workers
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.scoring.static_workers import StaticWorkers
from regrade.evaluators.static import ruff
from regrade.rewards import small_diff
from regrade.rewards.evidence import ComplexityDelta, Diff

BEFORE = {"a.py": "def f():\n    return 1\n"}
AFTER = {"a.py": "def f():\n    return 2\n"}
PATCH = Patch.between(BEFORE, AFTER)
MANY = {"b.py": "".join(f"def f{index}(a):\n    return a\n" for index in range(40_000))}


@pytest.fixture
def task(tmp_path: Path) -> Task:
    root = tmp_path / "repo"
    root.mkdir()
    for path, text in BEFORE.items():
        (root / path).write_text(text)
    return Task(id="t", repository="r", base=Tree(root), instruction="", fail_to_pass=(), pass_to_pass=())


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_workers, "BACK_OFF", (0.01, 0.01, 0.01))
    monkeypatch.setattr(gatherer, "BACK_OFF", (0.01, 0.01, 0.01))


@contextmanager
def killing(pool: StaticWorkers, sent: signal.Signals, times: int) -> Iterator[list[int]]:
    """Send a signal to the first processes that run a scan, each once."""
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not ended.is_set() and len(killed) < times:
            for process in list(pool._running):
                pid = process._process.pid
                if pid not in killed and len(killed) < times:
                    os.kill(pid, sent)
                    killed.append(pid)
            time.sleep(0.001)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def diff_of(pool: StaticWorkers, task: Task) -> Diff:
    found = pool.evidence(Diff, task.base, task.base.with_files(AFTER), PATCH, task)
    assert isinstance(found, Diff)
    return found


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_kills_from_outside_are_never_blamed_on_the_patch(task: Task, sent: signal.Signals) -> None:
    pool = StaticWorkers()
    try:
        with killing(pool, sent, 3) as killed:
            assert diff_of(pool, task) == Diff(1, 1, ("a.py",))
        assert len(killed) == 3
    finally:
        pool.close()
    pool = StaticWorkers()  # its first process is killed while it starts
    try:
        with killing(pool, sent, 100) as killed, pytest.raises(SandboxError, match=f"killed by {sent.name}, 4 times"):
            diff_of(pool, task)
        assert len(killed) == 4
    finally:
        pool.close()


def test_a_crash_every_time_is_caused_by_the_text(task: Task) -> None:
    pool = StaticWorkers()
    try:
        with killing(pool, signal.SIGSEGV, 4):
            assert diff_of(pool, task) == Diff(2, 0, ("a.py (the process that reads it dies)",))
    finally:
        pool.close()


def test_memory_beyond_its_limit_is_caused_by_the_patch(task: Task) -> None:
    pool = StaticWorkers(cpu_seconds=600, memory_mb=1180)  # of which the imports take most
    try:
        after = task.base.with_files(MANY)
        found = pool.evidence(ComplexityDelta, task.base, after, Patch.between({}, MANY), task)
        assert isinstance(found, ComplexityDelta)
        assert [name.partition(" ")[0] for name in found.unparsable] == ["b.py"]
    finally:
        pool.close()


def test_a_patch_whose_static_processes_are_killed_is_unscored(task: Task, tmp_path: Path) -> None:
    with Scorer(workers=1, cache=tmp_path / "cache", sandbox="auto") as scorer:
        with killing(scorer._static_workers, signal.SIGKILL, 100):
            (breakdown,) = scorer.score([(task, PATCH)], small_diff)
        assert breakdown.value is None
        assert "killed by SIGKILL" in str(breakdown)
        (again,) = scorer.score([(task, PATCH)], small_diff)
        assert again.value is not None


def program(folder: Path, name: str, body: str) -> Path:
    """A program that stands before the real one on PATH."""
    folder.mkdir()
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport os, signal\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_killed_git_leaves_the_patch_unscored(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "bin", "git", "os.kill(os.getpid(), signal.SIGKILL)")
    with Scorer(workers=1, cache=tmp_path / "cache", sandbox="auto") as scorer:
        with monkeypatch.context() as patching:
            patching.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
            with pytest.raises(OSError, match="git was killed by SIGKILL"):
                apply_patch(task.base, PATCH)
            (breakdown,) = scorer.score([(task, PATCH)], small_diff)
        assert breakdown.value is None
        assert "git was killed by SIGKILL" in str(breakdown)
        (again,) = scorer.score([(task, PATCH)], small_diff)
        assert again.value is not None


def test_cpu_time_of_git_is_caused_by_the_patch(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "bin", "git", "while True: pass")
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(applying, "CPU_SECONDS", 1)
    with pytest.raises(PatchError, match="more than 1 s of CPU time"):
        apply_patch(task.base, PATCH)


def test_a_git_that_hangs_is_not_caused_by_the_patch(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path / "bin", "git", "signal.pause()")
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(limited_processes, "WALL_SECONDS", 0.5)
    with pytest.raises(OSError, match=r"did not end within 0\.5 s"):
        apply_patch(task.base, PATCH)


@pytest.mark.parametrize(
    ("body", "error", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", OSError, "killed by SIGKILL"),
        ("while True: pass", ruff.RuffError, "CPU time"),
        ("os.kill(os.getpid(), signal.SIGABRT)", ruff.RuffError, "^$"),
    ],
)
def test_an_end_of_ruff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, error: type[Exception], reason: str
) -> None:
    path = program(tmp_path / "bin", "ruff", body)
    monkeypatch.setattr(ruff, "executable", lambda: str(path))
    monkeypatch.setattr(ruff, "CPU_SECONDS", 1)
    with pytest.raises(error, match=reason):
        ruff.check_text((), "a.py", b"x = 1\n")
