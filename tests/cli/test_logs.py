"""The log on stderr: only on request, and never in the output of the command."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys

import pytest

LINE = re.compile(r"^\d\d:\d\d:\d\d (DEBUG|INFO|WARNING) (regrade[\w.]*): (.*)$", re.MULTILINE)
WORKER = "regrade.evaluators.execution.worker"


@pytest.fixture
def score(regrade, repo, fix, tmp_path, monkeypatch):
    """Scores the fix with a new cache, so that a worker must start."""
    monkeypatch.setenv("REGRADE_CACHE", str(tmp_path / "own"))
    monkeypatch.delenv("REGRADE_LOG", raising=False)

    def run(*options):
        verb = ("score", fix, "--repo", repo, "--fail-to-pass", "tests/test_calc.py::test_add", "--json")
        outcome = regrade(*options, *verb)
        assert outcome.code == 0, outcome.err
        assert json.loads(outcome.out)["value"] > 0.9
        return LINE.findall(outcome.err), outcome

    return run


def test_a_score_logs_nothing_by_default(score):
    lines, outcome = score()
    assert lines == []
    assert "worker started" not in outcome.err + outcome.out
    assert logging.getLogger("regrade").level == logging.NOTSET


def test_verbose_shows_the_start_of_a_worker_and_leaves_no_handler_behind(score):
    before = list(logging.getLogger("regrade").handlers)
    lines, _ = score("-v")
    started = [message for level, name, message in lines if (level, name) == ("INFO", WORKER)]
    assert re.fullmatch(r"worker started: sandbox \w+, folder /\S+, \d+\.\d\d s", started[0])
    assert "DEBUG" not in {level for level, _, _ in lines}
    assert logging.getLogger("regrade").handlers == before
    assert logging.getLogger("regrade").level == logging.NOTSET


def test_very_verbose_shows_every_step(score):
    lines, _ = score("-vv")
    said = " | ".join(message for level, _, message in lines if level == "DEBUG")
    for words in ("baseline cache miss: ", "test selection: ", "evidence store: ", "candidate ended: "):
        assert words in said
    lines, _ = score("-vv")
    said = " | ".join(message for _, _, message in lines)
    assert "baseline cache hit: " in said
    assert "misses none" in said
    assert "worker started" not in said


def test_the_environment_selects_single_loggers(score, monkeypatch):
    monkeypatch.setenv("REGRADE_LOG", "warning, regrade.evaluators.scoring=debug")
    lines, _ = score()
    expected = {"regrade.evaluators.scoring.planner", "regrade.evaluators.scoring.verifier"}
    assert {name for _, name, _ in lines} == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("LOUD", ("REGRADE_LOG", "'LOUD'", "DEBUG, INFO")),
        ("regrade.evaluators=", ("''", "DEBUG, INFO")),
        ("INFO,torch=DEBUG", ("'torch=DEBUG'", "not a logger of regrade")),
        ("regrade.evaluators", ("'regrade.evaluators'", "not a level")),
    ],
)
def test_a_wrong_value_of_the_environment_is_refused(regrade, monkeypatch, value, words):
    monkeypatch.setenv("REGRADE_LOG", value)
    assert regrade("tasks", "list").is_refusal(*words)


def test_the_library_prints_nothing_by_itself():
    code = "import logging, regrade.evaluators; logging.getLogger('regrade.evaluators.x').critical('heard')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("", "")
