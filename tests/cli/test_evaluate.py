"""`regrade evaluate`, `compare` and `report` on real runs of tasks, mostly with scripted policies."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from regrade.datasets.sources import SPLITS
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.run import Run
from tests.cli.conftest import PLANTED
from tests.endpoint_server import serving


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
    assert "fixes 1 of 1" in regrade("explain", run, "add").out

    report = regrade("report", run)
    assert report.code == 0
    page = (run / "report.html").read_text()
    assert "reference" in page
    assert json.loads((run / "summary.json").read_text())["policies"]["reference"]["fix_rate"]["value"] == 1.0


def test_recorded_attempts_are_not_repeated(regrade, tasks, tmp_path):
    arguments = ("evaluate", "reference", "--tasks", tasks, "--out", tmp_path / "run")
    assert regrade(*arguments, "--limit", "2").code == 0
    rows = tmp_path / "run" / "evaluations" / "reference.jsonl"
    assert len(rows.read_text().splitlines()) == 2
    outcome = regrade(*arguments)
    assert "reference: 2 of 4 attempts are recorded already" in outcome.err
    assert "4 tasks, 4 attempts" in outcome.out
    assert len(rows.read_text().splitlines()) == 4


def test_tasks_are_listed_shown_and_validated(regrade, tasks):
    listed = [json.loads(line) for line in regrade("tasks", "list", tasks, "--json").out.splitlines()]
    assert [task["id"] for task in listed] == ["add", "double", "half", "negate"]
    assert listed[0]["function"] == "add"
    assert "4 tasks: library 4" in regrade("tasks", "list", tasks).out
    shown = regrade("tasks", "show", "half", tasks)
    assert "mend half" in shown.out
    assert "a / 2" not in shown.out, "the reference is shown only on request"
    assert "+    return a / 2" in regrade("tasks", "show", "half", tasks, "--reference").out
    assert regrade("tasks", "show", "third", tasks).is_refusal("no task 'third'", "'add'")
    assert "4 of 4 tasks are valid" in regrade("tasks", "validate", tasks).out


def test_a_temperature_below_zero_is_wrong_usage(regrade, tasks):
    for option, value in [("--temperature", "-1"), ("--temperature", "inf"), ("--seed", "99999999999999999999")]:
        outcome = regrade("evaluate", "no-op", "--tasks", tasks, "--out", "run", option, value)
        assert outcome.code == 2
        assert option in outcome.err


FIX = {
    name: f"calc.py\n<<<<<<< SEARCH\n    return {bad}\n=======\n    return {good}\n>>>>>>> REPLACE"
    for name, (good, bad) in PLANTED.items()
}
BREAK = "calc.py\n<<<<<<< SEARCH\ndef double(a):\n=======\ndef double(a, b):\n>>>>>>> REPLACE"


def asked_about(request):
    """The task that a chat is about."""
    said = request["messages"][1]["content"]
    return next(name for name in PLANTED if f"mend {name}" in said)


def figures(run):
    return json.loads((run / "summary.json").read_text())


def test_many_policies_behind_one_endpoint_each_at_its_own_best_temperature(regrade, tasks, tmp_path, monkeypatch):
    """`bold` fixes only at high temperatures; `plain` never fixes, and breaks tests at high temperatures."""

    def answer(request):
        hot = request["temperature"] > 0.5
        if request["model"] == "bold":
            return FIX[asked_about(request)] if hot else "I do not know."
        return BREAK if hot else "calc.py\n<<<<<<< SEARCH\n=======\n>>>>>>> REPLACE"

    validation, judged = tmp_path / "validation.jsonl", tmp_path / "judged.jsonl"
    lines = tasks.read_text().splitlines()
    validation.write_text("\n".join(lines[:2]))
    judged.write_text("\n".join(lines[2:]))
    monkeypatch.setenv("THE_KEY", "secret")
    run = tmp_path / "run"
    with serving(answer) as server:
        arguments = (
            "evaluate", "base=endpoint:plain", "endpoint:bold", "no-op", "reference", "--baseline", "base",
            "--endpoint", server.url, "--key-env", "THE_KEY", "--tasks", judged, "--validation", validation,
            "--temperature", "0.2", "--temperature", "1", "--samples", "3", "--samples-elsewhere", "1",
            "--validation-samples", "2", "--out", run,
        )  # fmt: skip
        outcome = regrade(*arguments)
        assert outcome.code == 0, outcome.err
        assert len(server.requests) == 2 * (2 * 2 * 2) + 2 * 2 * (3 + 1)
        again = regrade(*arguments, "--json")
        assert again.code == 0
        assert len(server.requests) == 32, "no request is repeated"
    assert {request["authorization"] for request in server.requests} == {"Bearer secret"}
    lines = [json.loads(line) for line in again.out.splitlines()]
    assert [(line["policy"], line["temperature"], line["is_best"]) for line in lines] == [
        ("base", 0.2, True), ("base", 1.0, False), ("bold", 0.2, False), ("bold", 1.0, True),
        ("no-op", 0.0, True), ("reference", 0.0, True),
    ]  # fmt: skip
    found = figures(run)["policies"]
    assert {name: policy["role"] for name, policy in found.items()} == {
        "base": "baseline", "bold": "candidate", "no-op": "scripted", "reference": "scripted"
    }  # fmt: skip
    assert [
        (t["temperature"], t["fix_rate"]["value"], t["breakage_incidence"]["value"])
        for t in found["base"]["temperatures"]
    ] == [(0.2, 0.0, 0.0), (1.0, 0.0, 1.0)]
    assert [(t["temperature"], t["fix_rate"]["value"]) for t in found["bold"]["temperatures"]] == [
        (0.2, 0.0),
        (1.0, 1.0),
    ]
    assert "rl_vs_sft" in figures(run)["comparison"]
    for words in ("by temperature", "T = 1 (best)", "bold against base"):
        assert words in outcome.out
    assert "secret" not in (run / "manifest.json").read_text() + outcome.out + outcome.err
    assert regrade("report", run).code == 0


def test_a_dying_endpoint_leaves_unscored_attempts_that_are_repeated_later(regrade, tasks, tmp_path):
    answered = []

    def dying(request):
        answered.append(request)
        return FIX[asked_about(request)] if len(answered) <= 2 else (500, {"error": "out of memory"})

    policies = tmp_path / "policies.toml"
    run = tmp_path / "run"
    with serving(dying) as server:
        policies.write_text(
            f'[[policy]]\nname = "p"\nendpoint = "{server.url}"\nmodel = "m"\ntries = 1\nat_a_time = 1\n'
        )
        arguments = ("evaluate", "--policies", policies, "--tasks", tasks, "--out", run, "--json")
        outcome = regrade(*arguments)
    assert outcome.code == 2
    assert "2 of 4 of 'p'; the first because the endpoint gave no answer" in outcome.err.splitlines()[-1]
    assert "500 out of memory" in outcome.err
    found = json.loads(outcome.out)
    assert (found["fix_rate"]["value"], found["fix_rate"]["n"], found["fix_rate"]["missing"]) == (1.0, 2, 2)
    assert (found["fix_rate"]["worst"], found["fix_rate"]["best"]) == (0.5, 1.0)
    assert (found["no_op_rate"]["value"], found["no_op_rate"]["n"]) == (0.0, 2)
    assert regrade("rescore", run, "--reward", "tests", "--json").code == 0
    with serving(lambda request: FIX[asked_about(request)]) as server:
        spec = policies.read_text()
        policies.write_text(re.sub("endpoint = .*", f'endpoint = "{server.url}"', spec).replace('"m"', '"another"'))
        assert regrade(*arguments).is_refusal("'p' is ", " here: give it another name")
        policies.write_text(re.sub("endpoint = .*", f'endpoint = "{server.url}"', spec))
        outcome = regrade(*arguments)
    assert outcome.code == 0, outcome.err
    assert len(server.requests) == 2
    assert json.loads(outcome.out)["fix_rate"]["n"] == 4


def test_a_policy_without_a_scored_attempt_has_no_figures_but_a_report(regrade, tasks, tmp_path):
    run = tmp_path / "run"
    policies = tmp_path / "policies.toml"
    policies.write_text(
        f'[[policy]]\nname = "dead"\ncommand = ["{sys.executable}", "-c", "raise SystemExit(9)"]\n'
        '[[policy]]\nscripted = "no-op"\nrole = "baseline"\n'
    )
    outcome = regrade("evaluate", "--policies", policies, "--tasks", tasks, "--out", run)
    assert outcome.code == 2
    assert "4 of 4 of 'dead'; the first because the command ended with code 9" in outcome.err
    assert "NOT COMPARABLE" in outcome.out
    found = figures(run)["policies"]["dead"]
    assert (found["fix_rate"]["value"], found["fix_rate"]["n"], found["no_op_rate"]) == (None, 0, None)
    assert json.loads(regrade("compare", run, "--json").out)["verdict"] == "not comparable"
    assert regrade("report", run).code == 0
    assert "code 9" in regrade("explain", run, "add", "--policy", "dead").out


def test_a_command_is_a_policy(regrade, tasks, tmp_path):
    agent = tmp_path / "agent.py"
    agent.write_text(
        "import os, pathlib, re, sys\n"
        f"planted = {PLANTED!r}\n"
        "name = re.search('mend (\\w+)', sys.argv[1])[1]\n"
        "good, bad = planted[name]\n"
        "path = pathlib.Path('calc.py')\n"
        "path.write_text(path.read_text().replace(bad, good))\n"
        "assert '/library' not in os.getcwd()\n"
    )
    outcome = regrade(
        "evaluate",
        f"agent=command:{sys.executable} {agent} {{instruction}}",
        "--tasks",
        tasks,
        "--out",
        tmp_path / "run",
        "--json",
    )
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["fix_and_clean"]["value"] == 1.0


def test_predictions_from_files_are_scored_without_a_policy(regrade, tasks, tmp_path):
    references = {task["id"]: task["reference"] for task in map(json.loads, tasks.read_text().splitlines())}
    lines = [
        {"instance_id": "add", "model_name_or_path": "agent", "model_patch": references["add"]},
        {"instance_id": "double", "model_name_or_path": "agent", "model_patch": references["add"]},
        {"instance_id": "other", "model_name_or_path": "agent", "model_patch": references["add"]},
        {"instance_id": "half", "model_name_or_path": "agent", "model_patch": ""},
    ]
    predictions = tmp_path / "preds.jsonl"
    predictions.write_text("\n".join(map(json.dumps, lines)))
    run = tmp_path / "run"
    arguments = ("evaluate", "--predictions", predictions, "--tasks", tasks, "--out", run, "--json")
    outcome = regrade(*arguments)
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["policy"] == "agent"
    assert {name: found[name]["value"] for name in ("fix_rate", "no_op_rate", "not_applied_rate")} == {
        "fix_rate": 0.25, "no_op_rate": 0.75, "not_applied_rate": 0.25
    }  # fmt: skip
    assert found["fix_rate"]["n_tasks"] == 4
    assert [line for line in outcome.err.splitlines() if line.startswith("note: ")] == [
        "note: agent: 'other' is none of the 4 tasks, and is ignored",
        "note: agent: no prediction for task 'negate', which counts as a patch that changes nothing",
    ]
    told = regrade(*arguments[:-1]).err  # from stored evidence
    assert "note: 1 of 4 patches of 'agent' do not apply, and count as changing nothing" in told
    assert told.rstrip().endswith(f"next: regrade report {run}")
    predictions.write_text("\n".join([*map(json.dumps, lines), "{torn", json.dumps({**lines[0], "model_patch": ""})]))
    outcome = regrade(*arguments)
    assert outcome.code == 2
    assert f"note: {predictions}:5: not JSON" in outcome.err
    assert "2 of 4 of 'agent'" in outcome.err, "add, doubled, and negate, which may be the torn line"
    assert json.loads(outcome.out)["fix_rate"]["n"] == 2
    predictions.write_text(
        "\n".join(json.dumps({**line, "model_patch": references.get(line["instance_id"])}) for line in lines)
    )
    outcome = regrade(*arguments, "--name", "mended")
    assert outcome.code == 0
    assert json.loads(outcome.out)["fix_rate"]["value"] == 0.75


def test_predictions_of_foreign_ids_are_refused(regrade, tmp_path):
    """They were 500 attempts at the ready-made tasks that change nothing, and exit code 0."""
    predictions = tmp_path / "preds.jsonl"
    lines = [{"instance_id": f"django__{n}", "model_name_or_path": "agent", "model_patch": ""} for n in range(500)]
    predictions.write_text("\n".join(map(json.dumps, lines)))
    outcome = regrade("evaluate", "--predictions", predictions, "--out", tmp_path / "run")
    assert outcome.is_refusal("preds.jsonl", "500 of 500 ids of 'agent', such as 'django__0'", "tasks")
    assert not (tmp_path / "run" / "evaluations").exists()
    report = tmp_path / "logs" / "django__1" / "report.json"
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps({"django__1": {"resolved": False, "tests_status": {}}}))
    for source in (report, tmp_path / "logs"):
        outcome = regrade("evaluate", "--predictions", source, "--out", tmp_path / "run")
        assert outcome.is_refusal(str(source), "regrade import SOURCE --out RUN")


def test_errors_in_policies_are_reported_before_anything_runs(regrade, tasks, tmp_path, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    base = ("evaluate", "--tasks", tasks, "--out", tmp_path / "run")
    for arguments, words in [
        ((), ("no policy: give POLICY",)),
        (("no-op", "no-op"), ("two policies have the name 'no-op'",)),
        (("no-op", "reference", "--name", "x"), ("--name 'x' applies to a single policy",)),
        (("no-op", "--baseline", "sft"), ("--baseline 'sft' is none of the policies: no-op",)),
        (("no-op", "reference", "--role", "baseline"), ("are both the baseline",)),
        (("endpoint:m",), ("--endpoint",)),
        (("endpoint:m", "--endpoint", "nonsense"), ("no URL",)),
        (("endpoint:m", "--endpoint", "http://x/v1", "--key-env", "NO_KEY"), ("'NO_KEY'",)),
        (("endpoint:", "--endpoint", "http://x/v1"), ("a policy without a name",)),
        (("no-op", "--name", "\x1b[31mred"), ("cannot be printed",)),
        (("command:say 'no",), ("cannot be split into words",)),
        (("command:no-such-program",), ("'no-such-program' is not installed",)),
        (("--checkpoints", tmp_path), ("holds no checkpoints", "--save-every")),
        (
            ("no-op", "--temperature", "0", "--temperature", "1", "--validation", tasks),
            ("is among the validation tasks",),
        ),
    ]:
        assert regrade(*base, *arguments).is_refusal(*words), arguments
    assert not (tmp_path / "run" / "evaluations").exists()


def test_slices_by_repository_source_difficulty_and_distance(regrade, tasks, tmp_path):
    values = [json.loads(line) for line in tasks.read_text().splitlines()]
    values[0]["difficulty"] = values[1]["difficulty"] = "easy"
    tasks.write_text("\n".join(map(json.dumps, values)))
    run = tmp_path / "run"
    outcome = regrade("evaluate", "no-op", "reference", "--tasks", tasks, "--out", run)
    assert outcome.code == 0, outcome.err
    found = figures(run)["slices"]
    assert list(found) == ["difficulty"], "no other property differs"
    assert {value: {name: row["fix_rate"]["value"] for name, row in policies.items()} for value, policies in found["difficulty"].items()} == {
        "easy": {"no-op": 0.0, "reference": 1.0}, "one line, function of up to 10 lines": {"no-op": 0.0, "reference": 1.0}
    }  # fmt: skip
    assert "by difficulty" in outcome.out
    assert "easy (2 tasks)" in outcome.out
    described = [json.loads(line) for line in (run / "tasks.jsonl").read_text().splitlines()]
    assert {(task["source"], task["distance"]) for task in described} == {("local", "1")}


OWN_EVIDENCE = """
from dataclasses import dataclass

from regrade.rewards import Score, reward


@dataclass(frozen=True)
class Unknown:
    pass


@reward
def unknowing(unknown: Unknown) -> Score:
    return Score(1.0, why="")
"""


@pytest.mark.parametrize("is_nested", [True, False], ids=["new", "existing"])
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["no/such/policy"], "no/such/policy"),
        (["no-op", "--baseline", "other"], "other"),
        (["no-op", "--reward", "own.py:unknowing"], "no probe gathers Unknown"),
        (["no-op", "--sandbox", "none"], "none"),
        (["no-op", "--tasks", "other.jsonl"], "other.jsonl"),
        (["no-op", "--tasks", "bad.jsonl"], "no test was found"),
    ],
)
def test_a_failed_evaluation_leaves_no_folder(regrade, tasks, tmp_path, arguments, word, is_nested):
    """Nor a file in a folder that existed already."""
    Path("own.py").write_text(OWN_EVIDENCE)
    bad = {"instruction": "x", "fail_to_pass": ["test_a.py::test"], "repository": str(tmp_path / "without_tests")}
    Path("bad.jsonl").write_text(json.dumps(bad))
    (tmp_path / "without_tests").mkdir()
    (tmp_path / "without_tests" / "a.py").write_text("x = 1\n")
    out = Path("runs", "first") if is_nested else Path("empty")
    if not is_nested:
        out.mkdir()
    before = sorted(Path().rglob("*"))
    given = [] if "--tasks" in arguments else ["--tasks", tasks]
    outcome = regrade("evaluate", *arguments, *given, "--out", out)
    assert outcome.is_refusal(word), outcome.err
    assert sorted(Path().rglob("*")) == before


def test_a_failed_evaluation_leaves_a_run_with_rows_as_it_is(regrade, tasks):
    assert regrade("evaluate", "no-op", "--tasks", tasks, "--out", "run").code == 0
    before = sorted(Path("run").rglob("*"))
    assert regrade("evaluate", "no-op", "--tasks", tasks, "--out", "run", "--baseline", "other").is_refusal("other")
    assert sorted(Path("run").rglob("*")) == before


def test_rows_recorded_before_a_failure_stay(tmp_path):
    def fail(folder, rows):
        with Run.started(folder) as run:
            if rows:
                journal.append(run.evaluation("p"), rows)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(tmp_path / "new" / "run", [{"a": 1}])
    assert (tmp_path / "new" / "run" / "manifest.json").exists()
    assert (tmp_path / "new" / "run" / "evaluations" / "p.jsonl").stat().st_size
    with pytest.raises(RuntimeError):
        fail(tmp_path / "newer" / "run", [])
    assert not (tmp_path / "newer").exists()


def test_the_ready_made_tasks_are_listed_without_their_packages(regrade, tmp_path, monkeypatch):
    monkeypatch.setenv("REGRADE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    listed = [json.loads(line) for line in regrade("tasks", "list", "--json").out.splitlines()]
    assert len(listed) == 2001
    counts = {split: len(regrade("tasks", "list", "--split", split).out.splitlines()) - 1 for split in SPLITS}
    assert sum(counts.values()) == 2001
    assert counts["validation"] == 107
    assert not (tmp_path / "empty").exists()
    packaged = {"instruction": "x", "fail_to_pass": ["t::a", "t::b"], "package": "toolz"}
    Path("tasks.json").write_text(json.dumps(packaged))
    (entry,) = [json.loads(line) for line in regrade("tasks", "list", "tasks.json", "--json").out.splitlines()]
    assert (entry["repository"], entry["source"], entry["fail_to_pass"]) == ("toolz", "local", 2)
    assert not (tmp_path / "empty").exists()
