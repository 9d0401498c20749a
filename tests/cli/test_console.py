"""Progress lines without a terminal: finished work always gets its last line."""

from __future__ import annotations

import io
import itertools
import re
import time

import pytest
from rich.console import Console

from regrade.cli import console


@pytest.fixture
def hasty(monkeypatch):
    """The state is printed again after 50 ms without a line."""
    monkeypatch.setattr(console, "QUIET_SECONDS", tuple(itertools.repeat(0.05, 1000)))


@pytest.mark.usefixtures("hasty")
def test_work_with_a_line_also_gets_a_last_line(capsys):
    with console.progress("scoring") as report:
        report(2, 3)
        time.sleep(0.3)
        report(3, 3)
    lines = capsys.readouterr().err.splitlines()
    assert set(lines[:-1]) <= {"scoring ...", "scoring: 2/3"}
    assert "scoring: 2/3" in lines
    assert lines[-1] == "scoring: 3/3"
    assert lines.count("scoring: 3/3") == 1


def test_short_work_prints_no_line(capsys):
    with console.progress("scoring") as report:
        for done in range(4):
            report(done, 3)
    assert capsys.readouterr().err == ""


def test_long_work_prints_a_line_per_tenth(capsys):
    with console.progress("scoring") as report:
        for done in range(41):
            report(done, 40)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"scoring: {done}/40" for done in range(4, 41, 4)]


def test_a_second_part_of_the_same_name_prints_its_own_tenths(capsys):
    with console.progress("round 1") as report:
        for total in (40, 20):
            for done in range(total + 1):
                report(done, total)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"round 1: {done}/{total}" for total in (40, 20) for done in range(total // 10, total + 1, total // 10)
    ]


@pytest.mark.usefixtures("hasty")
def test_the_repositorys_own_tests_and_the_scoring_end_at_their_totals(regrade, repo, fix, tmp_path, monkeypatch):
    monkeypatch.setenv("REGRADE_CACHE", str(tmp_path / "own"))
    (tmp_path / "empty.diff").write_text("")
    err = regrade("score", fix, tmp_path / "empty.diff", fix, "--repo", repo).err
    for description in ("running the unchanged tests", "scoring"):
        last = [line for line in err.splitlines() if line.startswith(f"{description}: ")][-1]
        done, total = last.removeprefix(f"{description}: ").split("/")
        assert done == total


def test_stages_side_by_side_have_lines_of_their_own_in_a_log(capsys):
    with console.stages() as stage, stage("SFT") as first, stage("judging SFT") as second:
        first(20, 20)
        second(10, 20)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == ["SFT ...", "judging SFT ...", "SFT: 20/20", "judging SFT: 10/20"]
    assert [line.rpartition(":")[0] for line in lines[4:]] == ["judging SFT", "SFT"]


def test_stages_side_by_side_share_a_terminal(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, color_system=None, highlight=False, width=80)
    monkeypatch.setattr(console, "stderr", lambda: screen)
    with console.stages() as stage, stage("SFT") as first:
        first(2, 20)
        with stage("judging SFT") as second:
            second(10, 20)
            deadline = time.monotonic() + 30
            while "10/20" not in screen.file.getvalue() and time.monotonic() < deadline:
                time.sleep(0.02)
    shown = screen.file.getvalue()
    assert re.search(r"SFT .* 2/20 .*\n.*judging SFT .* 10/20 ", shown), "one frame has both"
    assert re.search(r"judging SFT: \d+ s\n", shown)
    assert re.search(r"(?<!judging )SFT: \d+ s\n", shown)
