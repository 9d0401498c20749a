"""`regrade evaluate`, `compare` and `report` on tasks that are really run, with the scripted policies."""

from __future__ import annotations

import json


def test_policies_are_evaluated_into_one_run_and_compared(regrade, tasks, tmp_path):
    run = tmp_path / "run"
    for policy, role in (("no-op", "baseline"), ("reference", "candidate")):
        outcome = regrade("evaluate", policy, "--role", role, "--tasks", tasks, "--out", run, "--json")
        assert outcome.code == 0, outcome.err
        found = json.loads(outcome.out)
        assert found["policy"] == policy
        assert found["fix_and_clean"]["value"] == (1.0 if policy == "reference" else 0.0)
        assert found["breakage_incidence"]["value"] == 0.0
        assert found["fix_and_clean"]["n_tasks"] == 4
    compared = json.loads(regrade("compare", run, "--json").out)
    assert (compared["baseline"], compared["candidate"]) == ("no-op", "reference")
    assert compared["metrics"]["fix_rate"]["difference"] == 1.0
    assert "fixed 1 of 1" in regrade("explain", run, "add").out

    report = regrade("report", run)
    assert report.code == 0
    page = (run / "report.html").read_text()
    assert "reference" in page
    assert json.loads((run / "summary.json").read_text())["policies"]["reference"]["fix_rate"]["value"] == 1.0


def test_what_is_recorded_is_not_tried_again(regrade, tasks, tmp_path):
    arguments = ("evaluate", "reference", "--tasks", tasks, "--out", tmp_path / "run")
    assert regrade(*arguments, "--limit", "2").code == 0
    rows = tmp_path / "run" / "evaluations" / "reference.jsonl"
    assert len(rows.read_text().splitlines()) == 2
    outcome = regrade(*arguments)
    assert "2 of 4 tasks are done already" in outcome.err
    assert "4 tasks, 4 attempts" in outcome.out
    assert len(rows.read_text().splitlines()) == 4


def test_tasks_are_listed_shown_and_validated(regrade, tasks):
    listed = [json.loads(line) for line in regrade("tasks", "list", tasks, "--json").out.splitlines()]
    assert [task["id"] for task in listed] == ["add", "double", "half", "negate"]
    assert listed[0]["function"] == "add"
    assert "4 tasks: library 4" in regrade("tasks", "list", tasks).out
    shown = regrade("tasks", "show", "half", tasks)
    assert "mend half" in shown.out
    assert "a / 2" not in shown.out, "the reference is shown only when asked for"
    assert "+    return a / 2" in regrade("tasks", "show", "half", tasks, "--reference").out
    assert regrade("tasks", "show", "third", tasks).is_refusal("no task 'third'", "'add'")
    assert "4 of 4 tasks hold" in regrade("tasks", "validate", tasks).out


def test_a_temperature_below_zero_is_wrong_usage(regrade, tasks):
    outcome = regrade("evaluate", "no-op", "--tasks", tasks, "--out", "run", "--temperature", "-1")
    assert outcome.code == 2
