"""Progress lines without a terminal: finished work always gets its last line."""

from __future__ import annotations

import itertools
import time

import pytest

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
