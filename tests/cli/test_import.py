"""`regrade import`: small trees of graded results, from the files to the verdict of `compare`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from regrade.evaluators.storage.rows import load_rows

IDS = [
    f"{owner}__{name}-{number}" for owner, name in (("django", "django"), ("sympy", "sympy")) for number in (1, 2, 3)
]
GUARDS = ("tests.py::test_a", "tests.py::test_b[x]", "tests.py::test_c")


def report(fixed: bool, broken: Iterable[str] = (), guards: Iterable[str] = GUARDS) -> dict[str, Any]:
    """What SWE-bench's harness writes for one instance."""
    bad = [*broken]
    target = (
        {"success": ["tests.py::test_f"], "failure": []} if fixed else {"success": [], "failure": ["tests.py::test_f"]}
    )
    kept = {"success": [test for test in guards if test not in bad], "failure": bad}
    return {
        "patch_is_None": False,
        "patch_exists": True,
        "patch_successfully_applied": True,
        "resolved": fixed and not bad,
        "tests_status": {"FAIL_TO_PASS": target, "PASS_TO_PASS": kept},
    }


def tree(folder: Path, reports: dict[str, dict[str, Any]], *, outer: bool = True) -> Path:
    """`FOLDER/INSTANCE/report.json`, with or without the outer key."""
    for instance, content in reports.items():
        path = folder / instance / "report.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({instance: content} if outer else content))
    return folder


def instances(path: Path, ids: Iterable[str] = IDS, guards: Iterable[str] = GUARDS) -> Path:
    """A file of instances as SWE-bench publishes them, with lists as JSON text."""
    lines = [
        {
            "instance_id": name, "repo": name.split("-")[0].replace("__", "/"), "problem_statement": f"mend {name}",
            "FAIL_TO_PASS": json.dumps(["tests.py::test_f"]), "PASS_TO_PASS": json.dumps([*guards]), "patch": "",
        }
        for name in ids
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def known(run: Path, policy: str) -> dict[str, tuple[Any, ...]]:
    """Task -> (fix, broke, clean fix); None where it is missing."""
    rows = load_rows(run / "evaluations" / f"{policy}.jsonl")
    columns = rows[["fix", "broke", "clean_fix"]].astype(object)
    values = columns.where(columns.notna(), None).itertuples(index=False, name=None)
    return dict(zip(rows["task"], values, strict=True))


def test_reports_become_a_run_that_is_compared_and_reported(regrade, tmp_path):
    reports = {name: report(number % 2 == 0, GUARDS[:1] if number == 1 else ()) for number, name in enumerate(IDS)}
    first = tree(tmp_path / "old", reports)
    second = tree(tmp_path / "new", {name: report(True) for name in IDS}, outer=False)
    outcome = regrade(
        "import", first, second, "--tasks", instances(tmp_path / "tasks.jsonl"), "--out", tmp_path / "run"
    )
    assert outcome.code == 0, outcome.err
    assert known(tmp_path / "run", "old") == {
        name: (number % 2 == 0, number == 1, number % 2 == 0) for number, name in enumerate(IDS)
    }
    assert known(tmp_path / "run", "new") == dict.fromkeys(IDS, (1, 0, 1))
    compared = json.loads(regrade("compare", tmp_path / "run", "--json", "--fail-on", "never").out)
    assert (compared["baseline"], compared["candidate"]) == ("old", "new")
    assert compared["metrics"]["fix_rate"]["difference"] == 0.5
    assert compared["metrics"]["breakage_incidence"]["difference"] == pytest.approx(-1 / 6)
    assert regrade("report", tmp_path / "run").code == 0
    assert "nothing was executed" in (tmp_path / "run" / "report.html").read_text()


def test_what_a_source_does_not_say_is_missing_or_neither_fixed_nor_broken(regrade, tmp_path):
    silent = {"patch_is_None": False, "patch_exists": True, "patch_successfully_applied": False, "resolved": False}
    folder = tree(
        tmp_path / "agent",
        {
            IDS[0]: report(True, guards=()),
            IDS[1]: silent,
            IDS[2]: silent | {"patch_is_None": True, "patch_exists": False},
            IDS[3]: silent | {"infra_failure": True, "infra_failure_reason": "no image"},
        },
    )
    options = ("--tasks", instances(tmp_path / "tasks.jsonl"), "--out")
    outcome = regrade("import", folder, *options, tmp_path / "missing")
    nothing, lost = (0, 0, 0), (None, None, None)
    expected = {
        IDS[0]: (1, None, 1),
        IDS[1]: (None, None, 0),
        IDS[2]: nothing,
        IDS[3]: lost,
        IDS[4]: lost,
        IDS[5]: lost,
    }
    assert known(tmp_path / "missing", "agent") == expected
    assert "breakage unmeasured, as no PASS_TO_PASS test counted: django__django-1" in outcome.err
    assert "instances without any result: sympy__sympy-2, sympy__sympy-3" in outcome.err
    assert "no outcome, as no image: sympy__sympy-1" in outcome.err
    regrade("import", folder, *options, tmp_path / "unresolved", "--unreported", "unresolved")
    counted = {IDS[1]: nothing, IDS[4]: nothing, IDS[5]: nothing}
    assert known(tmp_path / "unresolved", "agent") == expected | counted


def test_tests_that_the_reference_breaks_are_set_aside(regrade, tmp_path):
    agent = tree(tmp_path / "agent", {name: report(True, GUARDS[:1]) for name in IDS[:2]})
    gold = tree(tmp_path / "gold", {IDS[0]: report(True, GUARDS[:1]), IDS[1]: report(False)})
    outcome = regrade("import", agent, "--gold", gold, "--out", tmp_path / "run")
    assert known(tmp_path / "run", "agent") == {IDS[0]: (1, 0, 1), IDS[1]: (1, 1, 0)}
    assert load_rows(tmp_path / "run" / "evaluations")["guarded"].tolist() == [2, 3]
    assert f"tests set aside, as the reference patch breaks them: {IDS[0]}" in outcome.err
    assert f"the reference patch does not fix: {IDS[1]}" in outcome.err
    regrade("import", gold, "--out", tmp_path / "reference")
    regrade("import", agent, "--gold", tmp_path / "reference", "--out", tmp_path / "again")
    rows = [path.read_text() for path in (tmp_path.glob("*/evaluations/agent.jsonl"))]
    assert len(rows) == 2
    assert rows[0] == rows[1]


def test_a_summary_alone_makes_a_report_without_figures_that_nobody_knows(regrade, tmp_path):
    summary = {"resolved_ids": IDS[:3], "unresolved_ids": IDS[3:], "total_instances": 6}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    outcome = regrade("import", tmp_path / "summary.json", "--policy", "agent", "--out", tmp_path / "run", "--json")
    (counts,) = json.loads(outcome.out)["policies"]
    assert (counts["clean"], counts["clean_known"], counts["fix_known"], counts["broke_known"]) == (3, 6, 0, 0)
    assert regrade("report", tmp_path / "run").code == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The number of guarded tests is not known" in page
    assert " nan " not in page


@pytest.mark.parametrize("name", ["missing", "predictions.jsonl", "junk.bin", "cut.csv"])
def test_a_source_without_results_is_one_line_and_leaves_nothing(regrade, tmp_path, name):
    prediction = {"instance_id": IDS[0], "model_name_or_path": "m", "model_patch": "x"}
    (tmp_path / "predictions.jsonl").write_text(json.dumps(prediction) + "\n")
    (tmp_path / "cut.csv").write_text('task,policy,fixed\n"t')
    (tmp_path / "junk.bin").write_bytes(bytes(range(256)) * 40)
    outcome = regrade("import", tmp_path / name, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_trajectories_are_joined_to_their_attempts_and_shown(regrade, tmp_path):
    def trajectory(name: str, **more: Any) -> str:
        messages = [
            {"role": "user", "content": "Mend it."},
            {"role": "assistant", "content": f"Look.\n```bash\nls {name}\n```"},
            {"role": "user", "content": "<output>\na.py\n</output>"},
        ]
        info = {"exit_status": "Submitted", "submission": "+a"}
        format_name = {"trajectory_format": "mini-swe-agent-1"}
        return json.dumps({"info": info, "messages": messages, "instance_id": name, **format_name, **more})

    for policy in ("old", "new"):
        folder = tree(tmp_path / policy / "logs", {name: report(policy == "new") for name in IDS})
        for name in IDS[:3]:
            path = folder.parent / "trajs" / f"{name}.traj.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(trajectory(name))
    (tmp_path / "new" / "trajs" / f"{IDS[3]}.traj.json").write_text(trajectory("else__where-1"))
    (tmp_path / "new" / "trajs" / f"{IDS[4]}.traj.json").write_text(
        trajectory(IDS[4], trajectory_format="mini-swe-agent-7")
    )
    (tmp_path / "new" / "trajs" / f"again.{IDS[0]}.traj.json").write_text(trajectory(IDS[0]))
    told = regrade("import", tmp_path / "old", tmp_path / "new", "--out", tmp_path / "run", "--tasks",
                   instances(tmp_path / "tasks.jsonl"))  # fmt: skip
    assert told.code == 0, told.err
    assert "old: the steps of 3 of 6 attempts" in told.out
    assert "new: the steps of 3 of 6 attempts" in told.out
    assert "doubled trajectories of one attempt, of which the first counts: django__django-1" in told.err
    assert "mini-swe-agent-7" in told.err
    assert regrade("report", tmp_path / "run").code == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("Trajectory: 1 step, submitted") == 6
    assert "How the agents work" in page
    assert "ls django__django-1" in regrade("explain", tmp_path / "run", IDS[0], "--policy", "new").out
    assert regrade("report", tmp_path / "run", "--steps").is_refusal("was imported")
    rows = load_rows(tmp_path / "run" / "evaluations" / "new.jsonl")
    assert rows["turns"].notna().sum() == 3
    assert rows["tested_at_end"].isna().all()


def test_trajectories_of_the_runs_of_one_policy_go_to_their_run(regrade, tmp_path):
    for number in (1, 2):
        folder = tree(tmp_path / f"run{number}", {name: report(fixed=True) for name in IDS})
        steps = [{"action": f"ls {number}", "observation": "a.py"}]
        (folder / IDS[0] / f"{IDS[0]}.traj").write_text(
            json.dumps({"environment": "e", "trajectory": steps, "info": {}})
        )
    told = regrade("import", tmp_path / "run1", tmp_path / "run2", "--policy", "both", "--out", tmp_path / "run")
    assert told.code == 0, told.err
    assert "both: the steps of 2 of 12 attempts" in told.out
    stored = [
        json.loads(line) for line in (tmp_path / "run" / "evaluations" / "both.episodes").read_text().splitlines()
    ]
    assert [(line["seed"], line["episode"]["steps"][0]["arguments"]["command"]) for line in stored] == [
        (0, "ls 1"), (1, "ls 2"),
    ]  # fmt: skip
