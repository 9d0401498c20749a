"""Graded results as rows and runs: run logs with lists of tests, names, tests set aside, and runs written whole."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.evaluators.analysis import comparability
from regrade.evaluators.analysis.comparison import compare
from regrade.evaluators.analysis.metrics import cost_per_clean_fix
from regrade.evaluators.storage.graded_rows import repository_of
from regrade.evaluators.storage.graded_runs import Counts, GradedImport, read_graded, write_graded
from regrade.evaluators.storage.rows import load_rows

GUARDS = ("a.py::test_one", "a.py::test_two[x,", "a.py::test_skipped", "a.py::test_gone")
HEADER = "Task Metadata:\n\t- Instance ID: {}\n\t- Evaluation Model: gpt\n>>>>> Applied Patch (pred)\n"
FIGURES = ("fixed", "broke", "fixed_but_broke", "clean", "missing")


def log(folder: Path, instance: str, lines: Iterable[str], end: str = ">>>>> Some Tests Failed\n") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = HEADER.format(instance) + "".join(f"{line}\n" for line in lines) + end
    (folder / f"{instance}.gpt.eval.log").write_text(text)


def lists(path: Path, instances: Iterable[str], guards: Iterable[str] = GUARDS) -> Path:
    entries = [
        {"instance_id": name, "repo": "x/x", "FAIL_TO_PASS": ["f"], "PASS_TO_PASS": [*guards]} for name in instances
    ]
    path.write_text(json.dumps(entries))
    return path


def figures(graded: GradedImport) -> dict[str, tuple[int, ...]]:
    return {each.policy: tuple(getattr(each, name) for name in FIGURES) for each in graded.counts()}


def test_a_run_log_is_graded_by_the_lists_of_its_instance(tmp_path: Path) -> None:
    """A test that the log does not name failed; a skipped one counts in neither list; an id may be cut off."""
    kept = ("PASSED a.py::test_one", "PASSED a.py::test_two[x, y]", "SKIPPED a.py::test_skipped")
    log(tmp_path / "logs", "x__x-1", ("PASSED f", *kept, "PASSED a.py::test_gone"))
    log(tmp_path / "logs", "x__x-2", ("XFAIL f", *kept))
    log(tmp_path / "logs", "x__x-3", ("PASSED f",), end="")
    graded = read_graded([tmp_path / "logs"], tasks=[lists(tmp_path / "tasks.json", ("x__x-1", "x__x-2", "x__x-3"))])
    first, second, third = graded.rows[tmp_path.name]
    assert (first["fix"], first["broke"], first["clean_fix"], first["guarded"]) == (1, 0, 1, 3)
    assert (second["fix"], second["broken_tests"], second["clean_fix"]) == (1, ["a.py::test_gone"], 0)
    assert (third["fix"], third["broke"], third["clean_fix"], third["cause"]) == (
        None,
        None,
        None,
        "the log has no end",
    )
    assert graded.findings.counts["test ids that are cut off or none"] == 3
    (tmp_path / "ids.jsonl").write_text('{"instance_id": "x__x-1"}\n')
    for tasks in ([], [tmp_path / "ids.jsonl"]):
        with pytest.raises(UserError, match="run logs do not name their FAIL_TO_PASS"):
            read_graded([tmp_path / "logs"], tasks=tasks)


def test_foreign_instances_are_left_out_and_a_source_of_them_alone_is_refused(tmp_path: Path) -> None:
    for name in ("x__x-1", "y__y-9"):
        log(tmp_path / "agent", name, ("PASSED f",))
    tasks = lists(tmp_path / "tasks.json", ("x__x-1", "x__x-2"))
    graded = read_graded([tmp_path / "agent"], tasks=[tasks])
    assert [row["task"] for row in graded.rows["agent"]] == ["x__x-1", "x__x-2"]
    assert "agent: instances that are none of the given ones, left out: y__y-9" in graded.findings.lines()
    with pytest.raises(UserError, match="none of its 2 instances"):
        read_graded([tmp_path / "agent"], tasks=[lists(tmp_path / "other.json", ("z__z-1",))])


def table(path: Path, rows: Iterable[tuple[str, int, int | str]], policy: str = "gpt") -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    lines = [f"{task},{policy},{fixed},{broken}\n" for task, fixed, broken in rows]
    path.write_text("task,policy,fixed,broken\n" + "".join(lines))
    return path


def test_names_of_policies_and_attempts(tmp_path: Path) -> None:
    rows = [("x__x-1", 1, 0), ("x__x-2", 0, 1)]
    sources = [table(tmp_path / run / "results.csv", rows) for run in ("old", "new")]
    assert [*read_graded(sources).rows] == ["gpt (old/results.csv)", "gpt (new/results.csv)"]
    named = read_graded(sources, policies=["a", "b"])
    assert [*named.rows] == ["a", "b"]
    runs = read_graded(sources, policies=["a"]).rows["a"]
    assert [(row["seed"], row["sample"], row["task"]) for row in runs] == [
        (0, 0, "x__x-1"), (0, 0, "x__x-2"), (1, 0, "x__x-1"), (1, 0, "x__x-2")
    ]  # fmt: skip
    with pytest.raises(UserError, match="must not be empty, nor equal but for special characters"):
        write_graded(read_graded(sources, policies=["a/b", "a_b"]), tmp_path / "run")
    with pytest.raises(UserError, match="3 names for 2 policies"):
        read_graded(sources, policies=["a", "b", "c"])
    with pytest.raises(UserError, match="two policies are named 'a'"):
        read_graded(sources, policies=["a", "a"])
    with pytest.raises(UserError, match="two policies are 'gpt"):
        read_graded([sources[0], sources[0]])
    with pytest.raises(UserError, match="no such file"):
        read_graded([tmp_path / "gone"])


def test_tests_that_the_reference_breaks_in_its_log_guard_nothing(tmp_path: Path) -> None:
    for name in ("agent", "gold"):
        log(tmp_path / name, "x__x-1", ("PASSED f", "FAILED a.py::test_one", "PASSED a.py::test_two[x, y]"))
    tasks = lists(tmp_path / "tasks.json", ("x__x-1",), GUARDS[:2])
    graded = read_graded([tmp_path / "agent"], tasks=[tasks], gold=tmp_path / "gold")
    (row,) = graded.rows["agent"]
    assert (row["broke"], row["guarded"], row["clean_fix"]) == (0, 1, 1)
    (plain,) = read_graded([tmp_path / "agent"], tasks=[tasks]).rows["agent"]
    assert (plain["broke"], plain["clean_fix"]) == (1, 0)
    assert plain["task_digest"] != row["task_digest"]
    alone = read_graded(
        [tmp_path / "agent"], tasks=[lists(tmp_path / "one.json", ("x__x-1",), GUARDS[:1])], gold=tmp_path / "gold"
    )
    assert (alone.rows["agent"][0]["broke"], alone.rows["agent"][0]["clean_fix"]) == (None, 1)


def test_tests_are_set_aside_by_id_alone_where_passed_ids_are_unknown(tmp_path: Path) -> None:
    row = {"task": "x__x-1", "fixed": 1, "n_fail_to_pass": 1, "n_pass_to_pass": 9}
    for name, broken in (("agent", ["a", "b"]), ("gold", ["b", "c"]), ("counts", 2)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row | {"policy": name, "broken": broken}) + "\n")
    graded = read_graded([tmp_path / "agent.jsonl", tmp_path / "counts.jsonl"], gold=tmp_path / "gold.jsonl")
    (agent,), (counts,) = graded.rows["agent"], graded.rows["counts"]
    assert (agent["guarded"], agent["broken_tests"], agent["broke"]) == (7, ["a"], 1)
    assert (counts["guarded"], counts["broken"]) == (9, 2)
    assert graded.findings.counts["results without test ids: no test could be set aside"] == 1
    run = write_graded(graded, tmp_path / "run")
    with pytest.raises(UserError, match="a run of 2 policies"):
        read_graded([tmp_path / "agent.jsonl"], gold=run.folder)


def test_a_run_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graded = read_graded([table(tmp_path / "a.csv", [("x__x-1", 1, 0), ("y__y-2", 1, "")])])
    run = write_graded(graded, tmp_path / "run")
    rows = load_rows(run.evaluation("gpt"))
    assert rows["repository"].tolist() == ["x/x", "y/y"]
    assert rows["broke"].isna().tolist() == [False, True]
    with pytest.raises(UserError, match="exists: choose a new folder"):
        write_graded(graded, tmp_path / "run")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_graded(graded, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "run"]


def test_two_imported_runs_are_compared_on_what_they_have(tmp_path: Path) -> None:
    """Rows that say resolved alone, against rows with tests; and notes that say so."""
    summary = {"resolved_ids": [f"x__x-{n}" for n in range(8)], "unresolved_ids": [f"x__x-{n}" for n in range(8, 20)]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    tests = table(tmp_path / "b.csv", [(f"x__x-{n}", int(n < 4), int(n < 2)) for n in range(20)])
    runs: list[Any] = []
    for name, source, unreported in (("one", tmp_path / "summary.json", "missing"), ("two", tests, "unresolved")):
        runs.append(write_graded(read_graded([source], unreported=unreported), tmp_path / name))
    first, second = (load_rows(run.folder / "evaluations") for run in runs)
    assert first["clean_fix"].sum() == 8
    assert first[["fix", "broke"]].isna().all(axis=None)
    result = compare(first, second)
    assert result.metrics["fix_and_clean"].difference == pytest.approx((2 - 8) / 20)
    assert result.n_missing == 0
    assert math.isnan(cost_per_clean_fix(first, "tokens"))
    _, notes = comparability.check(runs[0].folder, runs[1].folder)
    assert [note.partition(" ")[0] for note in notes] == ["imported", "attempts"]


def test_an_unresolved_instance_of_a_summary_is_never_neither_fixed_nor_broken(tmp_path: Path) -> None:
    """It may have fixed and broken: a summary alone says that it is no clean fix, also where leaderboards are followed."""
    summary = {"resolved_ids": ["x__x-1"], "unresolved_ids": ["x__x-2"], "error_ids": ["x__x-3"], "total_instances": 3}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    outcomes = {}
    for unreported in ("missing", "unresolved"):
        graded = read_graded([tmp_path / "summary.json"], unreported=unreported)  # type: ignore[arg-type]
        outcomes[unreported] = [[row[name] for name in ("fix", "broke", "clean_fix")] for row in graded.rows["summary"]]
    assert outcomes["missing"] == [[None, None, 1], [None, None, 0], [None, None, None]]
    assert outcomes["unresolved"] == [[None, None, 1], [None, None, 0], [None, None, 0]]


@pytest.mark.parametrize(
    ("instance", "repository"),
    [
        ("django__django-11099", "django/django"),
        ("scikit-learn__scikit-learn-13496", "scikit-learn/scikit-learn"),
        ("oauthlib__oauthlib.1fd5253.func_basic__aa11", "oauthlib/oauthlib"),
        ("chess-best-move", ""),
    ],
)
def test_the_repository_of_an_instance(instance: str, repository: str) -> None:
    assert repository_of(instance) == repository


DATA = os.environ.get("REGRADE_GRADED_RESULTS")
"""A folder with published graded results: rows of SWE-bench Lite and Verified, samples of reports, a job of Harbor."""


@pytest.mark.skipif(DATA is None, reason="$REGRADE_GRADED_RESULTS names no folder of published graded results")
class TestPublishedResults:
    """Figures against an independent computation: fixed, broke, fixed but broke, clean, without an outcome."""

    folder = Path(DATA or "")

    def test_swe_bench_lite(self) -> None:
        graded = read_graded([self.folder / "lite-2024" / "lite.jsonl"], unreported="unresolved")
        found = figures(graded)
        assert found["sweagent-gpt4"] == (60, 65, 7, 53, 0)
        assert found["opendevin-codeact-gpt4-1106"] == (51, 73, 4, 47, 0)
        assert found["gold"] == (293, 13, 8, 285, 0)
        runs = [[row for row in graded.rows["autocoderover-gpt4"] if row["sample"] == sample] for sample in (0, 1, 2)]
        counts = [tuple(sum(row[name] == 1 for row in rows) for name in ("fix", "broke", "clean_fix")) for rows in runs]
        assert counts == [(62, 59, 53), (65, 67, 57), (64, 61, 56)]

    def test_swe_bench_verified(self) -> None:
        graded = read_graded([self.folder / "mini-gemini" / "verified.jsonl"])
        (counts,) = graded.counts()
        assert isinstance(counts, Counts)
        assert figures(graded) == {"mini-swe-agent-gemini-3-pro": (384, 24, 13, 371, 0)}
        assert (counts.attempts, counts.broke_known) == (500, 489)

    def test_reports_agree_with_their_rows(self) -> None:
        sample = self.folder / "mini-gemini"
        (rows,) = read_graded([sample / "samples" / "logs"]).rows.values()
        (expected,) = read_graded([sample / "verified.jsonl"]).rows.values()
        known = {row["task"]: row for row in expected}
        assert len(rows) == 10
        for row in rows:
            for name in ("fix", "fixed", "fail_to_pass", "broke", "clean_fix", "guarded"):
                assert row[name] == known[row["task"]][name], (row["task"], name)

    def test_a_job_of_harbor(self) -> None:
        graded = read_graded([*(self.folder / "harbor-format" / "samples").iterdir()])
        assert [*figures(graded).values()] == [(7, 0, 0, 7, 0)]
        assert graded.counts()[0].broke_known == 0


def test_breakage_that_cannot_be_read_makes_no_clean_fix_and_breakage_of_an_unknown_fix_excludes_one(
    tmp_path: Path,
) -> None:
    file = tmp_path / "results.csv"
    file.write_text("task,policy,fixed,broken\na,p,1,-1\nb,p,1,some\nc,p,,2\nd,p,1,\ne,p,1,0\n")
    graded = read_graded([file])
    outcomes = {row["task"]: [row[name] for name in ("fix", "broke", "clean_fix")] for row in graded.rows["p"]}
    unknown = [None, None, None]
    assert outcomes == {"a": unknown, "b": unknown, "c": [None, 1, 0], "d": [1, None, 1], "e": [1, 0, 1]}
    assert any("no outcome, as its breakage cannot be read: a, b" in line for line in graded.findings.lines())


def test_rows_with_and_without_a_number_of_their_run_are_of_one_run(tmp_path: Path) -> None:
    """A run that is empty or no number is the first: its rows do not replace those of run 0."""
    file = tmp_path / "results.csv"
    file.write_text("task,policy,run,fixed,broken\na,p,0,1,0\nb,p,,1,0\nc,p,x,1,0\nb,p,0,0,0\n")
    graded = read_graded([file])
    assert [(row["task"], row["fix"], row["clean_fix"]) for row in graded.rows["p"]] == [
        ("a", 1, 1), ("b", None, None), ("c", 1, 1)
    ]  # fmt: skip
    assert any("doubled results, which differ: their outcome is missing: b" in line for line in graded.findings.lines())
