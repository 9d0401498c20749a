"""On a terminal, a display names what runs; on a pipe, nothing does unless `-v` asks for it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from regrade.cli.console import ActivityLines
from regrade.evaluators.execution.activity import Activity

SLOW = "import time\n\ndef test_quick(): pass\n\ndef test_takes_long(): time.sleep(2)\n"
REGRADE = (sys.executable, "-c", "from regrade.cli import console, main; console.SLOW_TEST_SECONDS = 0.5; main.main()")


@pytest.fixture
def command(repo, fix):
    """`regrade score` on a repository with a slow test."""
    (repo / "tests" / "test_slow.py").write_text(SLOW)
    return [*REGRADE, "score", str(fix), "--repo", str(repo)]


@pytest.fixture
def environment(tmp_path):
    return {**os.environ, "REGRADE_CACHE": str(tmp_path / "cache"), "TERM": "xterm-256color"}


def run_on_terminal(command: list[str], environment: dict[str, str], until: re.Pattern[str]) -> tuple[str, bool]:
    """The screen's text without its control sequences, and whether the pattern was there while the command ran."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 110, 0, 0))
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=follower, close_fds=True)
    os.close(follower)
    text, seen, deadline = "", False, time.monotonic() + 240
    while time.monotonic() < deadline:
        if select.select([leader], [], [], 0.2)[0]:
            try:
                block = os.read(leader, 1 << 16)
            except OSError:  # the other end is closed
                break
            text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", block.decode("utf-8", "replace"))
        seen = seen or (process.poll() is None and until.search(text) is not None)
    os.close(leader)
    assert process.wait(timeout=60) == 0, text[-2000:]
    return text, seen


@pytest.mark.slow
def test_the_running_test_is_on_the_screen_while_it_runs_and_the_totals_stay(command, environment):
    running = re.compile(r"base run 1 of 3: 3 of 4 tests, tests/test_slow\.py::test_takes_long \(\d s\)")
    text, seen = run_on_terminal(command, environment, running)
    assert seen
    assert set(re.findall(r"base run \d of \d: \d+ of (\d+) tests", text)) == {"4"}
    assert set(re.findall(r"running the unchanged tests[^\n]*?\d+/(\d+)", text)) == {"4"}
    assert "what each test executes" in text
    assert re.search(r"patch of local:repo: the whole suite: 3 of 4 tests, tests/test_slow", text)


@pytest.mark.slow
def test_a_pipe_stays_quiet_and_gets_a_line_per_phase_with_v(command, environment, repo):
    slow = SLOW.replace("2", "1")  # twice as long as a test is not shown
    (repo / "tests" / "test_slow.py").write_text(slow)
    quiet = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "test_takes_long" not in quiet.stderr
    assert "base run" not in quiet.stderr
    told = [*REGRADE, "-v", *command[len(REGRADE) :]]
    environment["REGRADE_CACHE"] += "2"
    (repo / "tests" / "test_slow.py").write_text(slow.replace("1", "0"))  # a phase has its line however short it is
    lines = subprocess.run(told, env=environment, capture_output=True, text=True, check=True).stderr.splitlines()
    phases = [line.rpartition("activity: ")[2] for line in lines if "activity: " in line]
    assert [phase for phase in phases if phase.startswith("base run")] == [f"base run {n} of 3" for n in (1, 2, 3)]
    assert phases[-1] == "patch of local:repo: the whole suite"


def shown(*activities: Activity, width: int = 80) -> list[str]:
    lines = ActivityLines()
    for activity in activities:
        lines(activity)
    return lines.texts(width)


def test_a_line_is_shorter_than_the_screen_and_keeps_the_end_of_the_test():
    activity = Activity(
        worker=1, phase="base run 2 of 3", test=f"tests/{'deep/' * 40}test_it.py::test_last", done=3, total=9
    )
    (line,) = shown(activity)
    assert len(line) < 80
    assert line.startswith("  base run 2 of 3: 3 of 9 tests, ...")
    assert line.endswith("/test_it.py::test_last")
    (narrow,) = shown(activity, width=30)
    assert len(narrow) < 30
    assert "..." not in narrow


def test_a_total_once_shown_stays_for_its_phase():
    first = Activity(worker=1, phase="base run 1 of 3", test="a", done=3, total=9)
    assert shown(first, Activity(worker=1, phase="base run 1 of 3", test="a", done=12, total=20)) == [
        "  base run 1 of 3: 9 of 9 tests, a"
    ]
    assert shown(first, Activity(worker=1, phase="base run 2 of 3", test="a", done=1, total=10)) == [
        "  base run 2 of 3: 1 of 10 tests, a"
    ]


def test_a_line_goes_with_its_phase_and_many_workers_share_the_last_one():
    assert shown(Activity(worker=1, phase="base run 1 of 3"), Activity(worker=1, phase="")) == []
    many = [Activity(worker=number, phase="base run 1 of 3") for number in range(30)]
    lines = shown(*many)
    assert len(lines) == 9
    assert lines[-1] == "  and 22 more"


def test_markup_and_line_breaks_of_a_phase_are_text():
    path = Path("a\x1b[2J\nb")
    (line,) = shown(Activity(worker=1, phase=f"patch of {path}: the whole suite"))
    assert line.isprintable()
