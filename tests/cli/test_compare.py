"""`regrade compare` and `explain` over recorded rows: exit codes of verdicts, and messages for wrong choices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regrade.evaluators.storage.rows import COLUMNS
from regrade.evaluators.storage.run import Run

PARTS = [{"name": "tests", "value": 0.5, "weight": 0.6, "contribution": 0.3, "why": "1 of 2 fixed"}]


def row(policy: str, task: int, fixed: bool, broke: bool, temperature: float = 0.0) -> dict[str, Any]:
    """One attempt, as an evaluation writes it."""
    return dict.fromkeys(COLUMNS, "") | {
        "policy": policy, "task": f"t{task}", "repository": "r", "function": f"f{task}", "temperature": temperature,
        "sample": 0, "seed": 0, "empty": False, "well_formed": True, "applied": True, "status": "scored",
        "reward": 0.3, "fix": int(fixed), "fail_to_pass": 1, "fixed": int(fixed), "guarded": 10, "broken": int(broke),
        "newly_skipped": 0, "broke": int(broke), "clean_fix": int(fixed and not broke), "tampering": None, "tokens": 1,
        "generation_seconds": 0.0, "execution_seconds": 0.0, "changed_lines": 2, "broken_tests": [], "parts": PARTS,
    }  # fmt: skip


def write(path: Path, policy: str, *, fixes: int, breaks: int, tasks: int = 60, temperature: float = 0.0) -> Path:
    """Attempts at `tasks` tasks, the first `fixes` with a fix, the last `breaks` with a breakage."""
    rows = [row(policy, n, n < fixes, n >= tasks - breaks, temperature) for n in range(tasks)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of a baseline, a better candidate and a worse one."""
    found = Run(tmp_path / "run")
    for name, role, fixes, breaks in (
        ("sft", "baseline", 10, 6),
        ("rl", "candidate", 40, 2),
        ("bad", "control", 2, 30),
    ):
        write(found.evaluation(name), name, fixes=fixes, breaks=breaks)
        found.add_policy(name, role)
    return found.folder


@pytest.mark.parametrize(
    ("fixes", "breaks", "verdict", "code"),
    [(50, 2, "improved", 0), (10, 50, "regressed", 1), (11, 6, "no difference shown", 0)],
)
def test_the_verdict_of_two_files_is_the_exit_code(regrade, tmp_path, fixes, breaks, verdict, code):
    first = write(tmp_path / "a.jsonl", "sft", fixes=10, breaks=6)
    second = write(tmp_path / "b.jsonl", "rl", fixes=fixes, breaks=breaks)
    outcome = regrade("compare", first, second, "--json")
    assert outcome.code == code, outcome.err
    found = json.loads(outcome.out)
    assert found["verdict"] == verdict
    assert found["metrics"]["fix_and_clean"]["low"] <= found["metrics"]["fix_and_clean"]["high"]
    assert verdict.upper() in regrade("compare", first, second).out


def test_incomparable_policies_do_not_pass_a_gate(regrade, tmp_path):
    first = write(tmp_path / "a.jsonl", "sft", fixes=10, breaks=6)
    second = write(tmp_path / "b.jsonl", "rl", fixes=10, breaks=6, tasks=50)
    outcome = regrade("compare", first, second)
    assert outcome.code == 2
    assert "not evaluated on the same tasks" in outcome.out


def test_the_candidate_of_a_run_is_compared_with_its_baseline(regrade, run):
    found = json.loads(regrade("compare", run, "--json").out)
    assert (found["baseline"], found["candidate"], found["verdict"]) == ("sft", "rl", "improved")
    assert regrade("compare", run, "--candidate-policy", "bad").code == 1


def test_parts_that_moved_and_tasks_that_changed_outcome_are_listed(regrade, tmp_path):
    first = write(tmp_path / "a.jsonl", "sft", fixes=30, breaks=0)
    second = write(tmp_path / "b.jsonl", "rl", fixes=5, breaks=2)
    plain = json.loads(regrade("compare", first, second, "--json").out)
    outcome = regrade("compare", first, second, "--json", "--tasks")
    assert outcome.code == 1
    found = json.loads(outcome.out)
    assert {key: found[key] for key in plain} == plain
    sides = found["tasks"]["sides"]
    assert [each["task"] for each in sides["no longer fixed"]] == sorted(f"t{number}" for number in range(5, 30))
    assert [each["task"] for each in sides["newly broken"]] == ["t58", "t59"]
    assert found["tasks"]["reward"]["difference"] == 0.0
    assert [part["name"] for part in found["tasks"]["parts"]] == ["tests"]
    text = regrade("compare", first, second, "--tasks").out
    assert "no longer fixed: 25 tasks" in text
    assert "1/1 -> 0/1  t10\n" in text
    assert "and 5 more: --json lists them all" in text
    assert "newly broken: 2 tasks" in text
    assert "newly fixed: 0 tasks" in text
    assert "no longer fixed" not in regrade("compare", first, second).out
    markdown = regrade("compare", first, second, "--tasks", "--markdown").out
    assert "| tests | 0.300 | 0.300 | +0.000 |  |" in markdown
    assert "**no longer fixed: 25 tasks**\n\n- 1/1 -\\> 0/1 t10\n" in markdown
    assert "newly fixed" not in markdown


def test_explain_shows_the_recorded_breakdown_of_an_attempt(regrade, run):
    found = json.loads(regrade("explain", run, "t3", "--json").out)
    assert found["value"] == 0.3
    assert found["parts"] == PARTS
    assert "1 of 2 fixed" in regrade("explain", run, "t3", "--policy", "sft").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "nowhere.jsonl", "nowhere.jsonl"], ["nowhere.jsonl", "no such file"]),
        (["compare", "RUN", "--candidate-policy", "gpt"], ["no policy 'gpt'", "'sft', 'rl', 'bad'"]),
        (["compare", "RUN", "--temperature", "0.7"], ["no rows at temperature 0.7", "there are rows at 0"]),
        (["compare", "RUN", "--margin", "3"], ["margin", "3"]),
        (["explain", "RUN"], ["give TASK_ID", "'t0'"]),
        (["explain", "RUN", "t99"], ["no attempt at task 't99'"]),
        (["explain", "RUN", "t1", "--sample", "5"], ["no sample 5"]),
        (["report", "."], ["not a run", "manifest.json"]),
    ],
)
def test_a_wrong_choice_is_one_line(regrade, run, arguments, words):
    assert regrade(*(run if each == "RUN" else each for each in arguments)).is_refusal(*words)


def test_several_candidates_need_a_choice(regrade, run):
    Run(run).add_policy("bad", "candidate")
    assert regrade("compare", run).is_refusal("2 policies are its candidate", "--candidate-policy")


@pytest.mark.parametrize("text", ["not JSON\n", "[1, 2]\n", '{"policy": "a"}\n'])
def test_a_file_that_is_no_evaluation_is_refused(regrade, tmp_path, text):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    assert regrade("compare", path, path).is_refusal("rows.jsonl")


DAMAGED = {
    "null": {"temperature": None},
    "text": {"temperature": "warm"},
    "infinite": {"reward": float("inf")},
    "not a number": {"reward": float("nan")},
    "a part": {"parts": [1, None]},
    "parts": {"parts": "abc"},
    "an object": {"task": {}},
    "half a sample": {"sample": 1.5},
    "a sample beyond all": {"sample": 10**30},
    "fixed a hundred times": {"clean_fix": 100},
    "broke less than nothing": {"broke": -1, "broken": -1},
    "half a pair": {"fix": "\ud800"},
    "half a pair in a name": {"function": "\ud800"},
    "a clean fix that fixed nothing": {"clean_fix": 1, "fix": 0},
    "a clean fix that broke": {"clean_fix": 1, "fix": 1, "broke": 1},
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize(
    "verb", [["compare"], ["report"], ["explain"], ["rewards", "audit"], ["rescore"]], ids=" ".join
)
def test_a_damaged_row_is_one_line_for_every_verb(regrade, run, verb, change):
    path = Run(run).evaluation("rl")
    lines = path.read_text().splitlines()
    lines[3] = json.dumps(json.loads(lines[3]) | change)
    path.write_text("\n".join(lines) + "\n")
    more = ["--reward", "tests"] if verb == ["rescore"] else []
    assert regrade(*verb, run, *more).is_refusal("rl.jsonl", "4")


@pytest.mark.parametrize(
    "text",
    [
        '{"policies": [1]}',
        '{"policies": {"a": {"role": "baseline", "best_temperature": null}}}',
        '{"policies": {"a": {"role": "baseline", "best_temperature": NaN}}}',
        '{"versions": [null]}',
        '{"name": 5}',
        '{"phases": {"sft": "long"}}',
        '{"policies": {"a": {"role": "baseline", "label": "\\ud800"}}}',
        "[" * 200_000,
        "{",
    ],
    ids=["a list", "null", "no number", "versions", "name", "phases", "half a pair", "deep", "torn"],
)
def test_a_damaged_manifest_is_one_line(regrade, run, text):
    (run / "manifest.json").write_text(text)
    assert regrade("compare", run).is_refusal("manifest.json")
    (run / "evaluations" / "rl.jsonl").write_text(f"{text}\n")
    assert regrade("compare", run / "evaluations" / "rl.jsonl", run / "evaluations" / "sft.jsonl").is_refusal(
        "rl.jsonl"
    )


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("training/rl.jsonl", '{"phase": "rl", "step": "first"}'),
        ("training/rl.jsonl", '{"phase": "rl", "step": 1, "execution_seconds": {}}'),
        ("training/rl.jsonl", f'{{"phase": "rl", "step": 1, "loss": {"9" * 400}}}'),
        ("training/rl.jsonl", '{"phase": "rl", "step": 1, "loss": 1e999}'),
        ("tasks.jsonl", '{"repository": "r"}'),
        ("tasks.jsonl", '{"id": "t0", "reference": 5}'),
        ("tasks.jsonl", '{"id": "t0", "instruction": "\\ud800"}'),
    ],
)
def test_a_damaged_step_or_task_is_one_line(regrade, run, file, line):
    path = run / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{line}\n")
    assert regrade("report", run).is_refusal(file, "1")


def test_a_bad_row_of_a_folder_is_named_by_its_file_and_its_number_there(regrade, run):
    folder = run / "evaluations"
    (folder / "zz.jsonl").write_text('{"policy": 5}\n')
    assert regrade("compare", folder, folder).is_refusal("zz.jsonl, row 1")


def test_a_folder_in_the_place_of_a_file_is_one_line(regrade, run):
    (run / "manifest.json").unlink()
    (run / "manifest.json").mkdir()
    assert regrade("report", run).is_refusal("manifest.json", "directory")


def test_a_single_task_needs_no_task_id(regrade, tmp_path):
    rows = write(tmp_path / "one.jsonl", "sft", fixes=1, breaks=0, tasks=1)
    assert "sft on t0" in regrade("explain", rows).out


REPORT = {"django-1": {"resolved": True, "tests_status": {"PASS_TO_PASS": {"success": ["a"], "failure": []}}}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("report.json", json.dumps(REPORT, indent=2)),
        ("report.json", json.dumps(REPORT)),
        ("summary.json", json.dumps({"schema_version": 2, "resolved_ids": ["django-1"]}, indent=4)),
        ("preds.jsonl", json.dumps({"instance_id": "django-1", "model_patch": ""}) + "\n"),
        ("results.csv", "task,policy,fixed,broken\ndjango-1,agent,1,0\n"),
    ],
    ids=["report", "report in one line", "summary", "predictions", "table"],
)
def test_graded_results_of_another_program_name_their_reader(regrade, tmp_path, name, text):
    """The advice was to delete a line of valid JSON, or there were "no rows"."""
    folder = tmp_path / "agent" / "django-1"
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
    for source in (folder / name, tmp_path / "agent"):
        outcome = regrade("compare", source, source)
        assert outcome.is_refusal(str(source), "regrade import SOURCE --out RUN")
        assert "delete" not in outcome.err


def test_two_files_of_one_policy_name_stay_two_policies(regrade, tmp_path):
    first = write(tmp_path / "a" / "rows.jsonl", "agent", fixes=10, breaks=6)
    second = write(tmp_path / "b" / "rows.jsonl", "agent", fixes=50, breaks=2)
    found = json.loads(regrade("compare", first, second, "--json").out)
    assert (found["baseline"], found["candidate"]) == ("agent (a/rows.jsonl)", "agent (b/rows.jsonl)")
    assert found["verdict"] == "improved"
    (tmp_path / "a" / "other.jsonl").write_text(second.read_text())
    assert regrade("compare", tmp_path / "a", second).is_refusal(
        "other.jsonl and", "rows.jsonl", "'agent' at task 't0'"
    )


def test_rows_that_know_only_whether_a_task_was_resolved_are_compared(regrade, tmp_path):
    files = []
    for name, fixes in (("old", 10), ("new", 50)):
        path = write(tmp_path / f"{name}.jsonl", name, fixes=fixes, breaks=0)
        unknown = dict.fromkeys(("fix", "fixed", "broke", "broken", "guarded", "fail_to_pass"))
        rows = [json.loads(line) | unknown for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(each) + "\n" for each in rows))
        files.append(path)
    outcome = regrade("compare", *files, "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert (found["verdict"], found["n_missing"]) == ("inconclusive", 0)
    assert found["decision"] == {
        "fixing": "better", "breaking": "unmeasured", "detail": "fixes more, breakage unmeasured"
    }  # fmt: skip
    assert "breakage_incidence" not in found["metrics"]
    assert any("breakage is unmeasured" in warning for warning in found["warnings"])
    text = regrade("compare", *files, "--tasks").out
    assert "newly fixed: 40 tasks" in text
    assert regrade("compare", *files, "--fail-on", "inconclusive").code == 1
    assert regrade("compare", *reversed(files)).code == 1, "fixes less is a regression, whatever the breakage"
