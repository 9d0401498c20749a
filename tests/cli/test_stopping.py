"""An evaluation stopped or killed during slow policies: no process survives, no answer is requested twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.cli.conftest import PLANTED
from tests.endpoint_server import serving

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
REGRADE = (sys.executable, "-c", "from regrade.cli.main import main; main()")
FIX = {
    name: f"calc.py\n<<<<<<< SEARCH\n    return {bad}\n=======\n    return {good}\n>>>>>>> REPLACE"
    for name, (good, bad) in PLANTED.items()
}


def asked_about(request: dict) -> str:
    said = request["messages"][1]["content"]
    return next(name for name in PLANTED if f"mend {name}" in said)


def start(cache: Path, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [*REGRADE, *map(str, arguments)], cwd=ROOT, env={**os.environ, "REGRADE_CACHE": str(cache)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_received_answers_are_not_requested_again(cache, tasks, tmp_path, number):
    """The server answers two of four tasks at once, the others only after the stop of the evaluation."""
    wait, told = threading.Event(), threading.Event()

    def answer(request):
        if asked_about(request) in ("half", "negate") and not wait.is_set():
            told.set()
            wait.wait(60)
        return FIX[asked_about(request)]

    run = tmp_path / "run"
    with serving(answer) as server:
        arguments = ("evaluate", "endpoint:m", "--endpoint", server.url, "--tasks", tasks, "--out", run, "--json")
        first = start(cache, *arguments)
        answers = run / "evaluations" / "m.answers"
        deadline = time.monotonic() + 120
        while not (answers.exists() and len(answers.read_text().splitlines()) == 2) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert told.wait(10)
        began = time.monotonic()
        first.send_signal(number)
        _, errors = first.communicate(timeout=60)
        assert time.monotonic() - began < 30, "running requests are not awaited"
        assert first.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), errors
        wait.set()
        server.requests.clear()
        again = start(cache, *arguments)
        out, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert sorted(map(asked_about, server.requests)) == ["half", "negate"]
    assert json.loads(out)["fix_and_clean"]["value"] == 1.0


def test_ctrl_c_ends_commands_and_their_child_processes(cache, tasks, tmp_path):
    pids = tmp_path / "pids"
    agent = f"sh -c 'sleep 300 & echo $! >> {pids}; echo $$ >> {pids}; wait'"
    started = start(cache, "evaluate", f"command:{agent}", "--tasks", tasks, "--out", tmp_path / "run")
    deadline = time.monotonic() + 120
    while not (pids.exists() and len(pids.read_text().split()) == 4) and time.monotonic() < deadline:
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 130, errors
    assert not [pid for pid in pids.read_text().split() if is_running(int(pid))]


def many_tasks(tasks: Path) -> Path:
    """A task file that takes a minute to read: each base is a patch of its own."""
    task = json.loads(tasks.read_text().splitlines()[0])
    path = tasks.with_name("many.jsonl")
    path.write_text("\n".join(json.dumps({**task, "id": f"task-{number}"}) for number in range(8000)))
    return path


def apply_folders(folder: Path) -> list[Path]:
    return list(folder.glob("regrade-*-apply-*"))


def wait_until(is_true, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stop_while_tasks_are_read_leaves_no_folder(cache, tasks, fix, repo, tmp_path, monkeypatch, number):
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    started = start(cache, "tasks", "list", many_tasks(tasks))
    wait_until(lambda: apply_folders(scratch))
    began = time.monotonic()
    started.send_signal(number)
    out, errors = started.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert started.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}.get(number, -number), errors
    assert "Traceback" not in errors
    assert out == ""
    if number == signal.SIGKILL:  # the next command that scores removes what is left
        (scratch / f"regrade-{started.pid}-1-apply-left").mkdir()
        again = start(cache, "score", fix, "--repo", repo)
        again.communicate(timeout=120)
        assert again.returncode == 0
    assert list(scratch.iterdir()) == []


def test_sigterm_while_a_patch_is_scored_ends_its_tests(cache, repo, diff, tmp_path, monkeypatch):
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    # A name for the processes of the candidate: no other has it on its command line.
    mark = f"regrade-test-{os.getpid()}-{time.time_ns()}"
    code = f"import subprocess, time\n    subprocess.Popen(['sleep', '297', '{mark}'])\n    time.sleep(200)\n    "
    slow = diff("return a - b", f"{code}return a + b".replace("'sleep', '297'", "'sh', '-c', 'sleep 297; :'"))
    assert start(cache, "score", diff("a * 2", "2 * a"), "--repo", repo).wait(120) == 0
    started = start(cache, "score", slow, "--repo", repo, "--test-timeout", "150")
    wait_until(lambda: running_with(mark))
    began = time.monotonic()
    started.send_signal(signal.SIGTERM)
    _, errors = started.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert started.returncode == 143, errors
    assert errors.splitlines()[-1].startswith("stopped; finished work is stored")
    assert "Traceback" not in errors
    wait_until(lambda: not running_with(mark), 10)
    assert list(scratch.iterdir()) == []


def running_with(mark: str) -> list[str]:
    """The processes with this word on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words:
            found.append(path.parent.name)
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
