"""Sources of every format: which results they hold, whose they are, and what is odd in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.graded.reading import GradedPolicy, read_policies
from regrade.datasets.graded.records import Findings, GradedResult

TESTS = {"FAIL_TO_PASS": {"success": ["f"], "failure": []}, "PASS_TO_PASS": {"success": ["a"], "failure": ["b"]}}
REPORT = {"patch_exists": True, "patch_successfully_applied": True, "resolved": False, "tests_status": TESTS}


def write(path: Path, value: Any) -> Path:
    """A file of JSON, or of JSON lines if its name says so, or of text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(each) + "\n" for each in value) if path.suffix == ".jsonl" else ""
    path.write_text(value if isinstance(value, str) else lines or json.dumps(value))
    return path


def prediction(instance: str, patch: str | None, model: str = "m") -> dict[str, Any]:
    return {"instance_id": instance, "model_name_or_path": model, "model_patch": patch}


def read(source: Path) -> tuple[list[GradedPolicy], dict[str, int]]:
    """The policies, and finding -> number of its subjects."""
    findings = Findings()
    return read_policies(source, findings), dict(findings.counts)


def only(source: Path) -> tuple[dict[str, GradedResult], dict[str, int]]:
    """The results of the only attempt of the only policy."""
    (policy,), findings = read(source)
    (results,) = policy.samples.values()
    return results, findings


def test_a_report_with_and_without_its_outer_key_or_with_several_instances(tmp_path):
    write(tmp_path / "one" / "x__x-1" / "report.json", REPORT)
    write(tmp_path / "two" / "x__x-1" / "report.json", {"x__x-1": REPORT})
    write(tmp_path / "three" / "all.json", {"x__x-1": REPORT, "x__x-2": REPORT})
    for number in (1, 2):
        write(tmp_path / "four" / f"x__x-{number}.json", {f"x__x-{number}": REPORT})
    found = [only(tmp_path / name)[0] for name in ("one", "two", "three", "four")]
    both = ["x__x-1", "x__x-2"]
    assert [[*each] for each in found] == [["x__x-1"], ["x__x-1"], both, both]
    for results in found:
        tests = results["x__x-1"].pass_to_pass
        assert tests is not None
        assert (tests.total, tests.failed, tests.failed_ids) == (2, 1, ("b",))
        assert results["x__x-1"].fail_to_pass.failed == 0


def test_both_sides_under_one_model_name_stay_two_policies(tmp_path):
    for run in ("run1", "run2"):
        write(tmp_path / run / "gpt-4" / "x__x-1" / "report.json", REPORT)
    assert [policy.name for policy in read(tmp_path)[0]] == ["run1/gpt-4", "run2/gpt-4"]
    rows = [{"task": "t", "policy": "gpt-4", "fixed": 1}]
    write(tmp_path / "tables" / "a.jsonl", rows)
    write(tmp_path / "tables" / "b.jsonl", rows)
    assert [policy.name for policy in read(tmp_path / "tables")[0]] == ["gpt-4 (a)", "gpt-4 (b)"]


def test_holes_in_reports_are_named_and_their_instances_have_no_outcome(tmp_path):
    write(tmp_path / "x__x-1" / "report.json", "{")
    write(tmp_path / "x__x-2" / "report.json", REPORT | {"tests_status": {"FAIL_TO_PASS": {"success": [1]}}})
    write(tmp_path / "x__x-3" / "report.json", {"x__x-3": REPORT, "x__x-4": None})
    write(tmp_path / "x__x-5" / "report.json", REPORT)
    write(tmp_path / "x__x-6" / "report.json", "")
    results, findings = only(tmp_path)
    assert findings["empty files"] == 1
    assert {"x__x-2", "x__x-5"} <= results.keys()
    assert results["x__x-2"].fail_to_pass is None
    assert results["x__x-2"].why == "the report lacks a list of tests"
    assert findings["lines or files that are not JSON"] == 1
    assert findings["reports with holes"] == 2


def test_predictions_null_empty_doubled_and_doubled_otherwise(tmp_path):
    for number in range(1, 6):
        write(tmp_path / "logs" / f"x__x-{number}" / "report.json", REPORT)
    lines = [
        prediction("x__x-1", None),
        prediction("x__x-2", " \n"),
        prediction("x__x-3", "+a"),
        prediction("x__x-4", "+a"),
    ]
    write(
        tmp_path / "all_preds.jsonl",
        [*lines, prediction("x__x-3", "+a\n"), prediction("x__x-4", "+b"), {"model_patch": "x", "instance_id": 3}],
    )
    results, findings = only(tmp_path)
    assert {name: (result.empty, result.patch) for name, result in results.items()} == {
        "x__x-1": (True, ""), "x__x-2": (True, " \n"), "x__x-3": (False, "+a"), "x__x-4": (None, None), "x__x-5": (None, None)
    }  # fmt: skip
    assert findings["doubled predictions, which are equal"] == 1
    assert findings["doubled predictions, which differ: which one was graded is unknown"] == 1
    assert findings["predictions without an instance or a patch"] == 1


def test_a_batch_of_mini_swe_agent_with_the_summary_of_sb_cli(tmp_path):
    write(tmp_path / "preds.json", {"x__x-1": prediction("x__x-1", "+a"), "x__x-2": prediction("x__x-2", "")})
    for name, submission, status in (("x__x-1", "+a", "Submitted"), ("x__x-3", "", "LimitsExceeded")):
        trajectory = {"info": {"submission": submission, "exit_status": status}, "instance_id": name, "messages": []}
        write(tmp_path / name / f"{name}.traj.json", trajectory)
    with pytest.raises(UserError, match="predictions only, which are not graded"):
        read(tmp_path)
    summary = {
        "total_instances": 5, "resolved_ids": ["x__x-1"], "unresolved_ids": ["x__x-4"], "empty_patch_ids": ["x__x-2"],
        "error_ids": ["x__x-3"], "completed_ids": ["x__x-1", "x__x-4"], "schema_version": 2,
    }  # fmt: skip
    write(tmp_path / "sb-cli-reports" / "verified.json", summary)
    results, findings = only(tmp_path)
    assert {name: (result.resolved, result.empty, result.why) for name, result in results.items()} == {
        "x__x-1": (True, False, ""), "x__x-2": (None, True, ""), "x__x-4": (False, None, ""),
        "x__x-3": (None, None, "the summary lists it as an error"),
    }  # fmt: skip
    assert findings["summaries that name fewer instances than they count"] == 1


def test_a_summary_of_one_instance_beside_reports_of_several(tmp_path):
    for number in range(1, 4):
        write(tmp_path / "logs" / f"x__x-{number}" / "report.json", REPORT)
    write(tmp_path / "logs" / "x__x-1" / "report.json", REPORT | {"resolved": None, "tests_status": None})
    write(tmp_path / "summary.json", {"resolved_ids": ["x__x-1"], "total_instances": 1})
    results, findings = only(tmp_path)
    assert len(results) == 3
    assert results["x__x-1"].resolved is None
    assert findings["resolved by a summary, though a deeper source has no outcome: missing"] == 1
    assert findings["summaries that cover fewer instances than the results"] == 1


def test_summaries_and_predictions_of_two_policies_find_their_reports(tmp_path):
    for model in ("gpt", "o__llama"):
        write(tmp_path / "logs" / "run7" / model / "x__x-1" / "report.json", REPORT)
        write(tmp_path / f"{model}.run7.json", {"resolved_ids": ["x__x-1"], "unresolved_ids": [f"{model}__x-2"]})
    write(tmp_path / "a.jsonl", [prediction("x__x-1", "+gpt", "gpt")])
    write(tmp_path / "b.jsonl", [prediction("x__x-1", "+llama", "o/llama")])
    write(tmp_path / "c.jsonl", [prediction("x__x-1", "+other", "other")])
    policies, findings = read(tmp_path)
    found = {policy.name: policy.samples[0, 0] for policy in policies}
    assert {name: (results["x__x-1"].patch, len(results)) for name, results in found.items()} == {
        "logs/run7/gpt": ("+gpt", 2), "logs/run7/o__llama": ("+llama", 2)
    }  # fmt: skip
    assert findings["summaries and predictions of which it is unclear whose they are, ignored"] == 1


def test_the_deepest_source_decides_and_equal_depth_that_differs_is_missing(tmp_path):
    write(tmp_path / "a" / "x__x-1" / "report.json", REPORT)
    write(tmp_path / "a" / "x__x-1" / "test_output.txt", "+ : '>>>>> Start Test Output'\nPASSED b\n")
    write(tmp_path / "a" / "x__x-1" / "patch.diff", "+line\n")
    write(tmp_path / "a" / "x__x-2" / "report.json", {"x__x-2": REPORT})
    write(tmp_path / "a" / "x__x-2" / "again.json", {"x__x-2": REPORT | {"resolved": True}})
    results, findings = only(tmp_path)
    assert results["x__x-1"].pass_to_pass.failed_ids == ("b",)
    assert results["x__x-1"].patch == "+line\n"
    assert findings["logs without an end"] == 1
    assert (results["x__x-2"].pass_to_pass, results["x__x-2"].why) == (None, "two results that differ")


def trial(number: int, task: str, reward: float | None, failure: str = "", agent: str = "a") -> dict[str, Any]:
    return {
        "task_name": task, "trial_name": f"{task}__{number}", "source": "bench",
        "verifier_result": None if reward is None else {"rewards": {"reward": reward}},
        "exception_info": {"exception_type": failure} if failure else None,
        "agent_info": {"name": agent, "model_info": {"name": "m"}}, "agent_result": {"n_output_tokens": 7},
    }  # fmt: skip


def test_a_job_of_harbor_with_several_trials_a_task(tmp_path):
    trials = [trial(1, "t", 1.0), trial(2, "t", 0.5), trial(3, "u", None, "AgentTimeoutError"), trial(4, "u", 0, "X")]
    for each in trials:
        write(tmp_path / "job" / each["trial_name"] / "result.json", each)
    config = {"trial_name": "v__5", "task": {"path": "tasks/v"}, "agent": {"name": "a", "model_name": "m"}}
    write(tmp_path / "job" / "v__5" / "config.json", config)
    write(tmp_path / "job" / "result.json", {"n_total_trials": 7, "stats": {}})
    write(tmp_path / "job" / "w__6" / "result.json", trial(6, "w", 1.0) | {"task_name": None})
    (policy,), findings = read(tmp_path / "job")
    assert (policy.name, policy.model) == ("job", "m")
    found = {(s, name): (r.fix, r.broke, r.why) for (_, s), each in policy.samples.items() for name, r in each.items()}
    assert found == {
        (0, "t"): (True, None, ""), (1, "t"): (False, None, ""), (1, "u"): (False, None, ""),
        (0, "u"): (None, None, "the trial ended with AgentTimeoutError"), (0, "v"): (None, None, "the trial has no result"),
    }  # fmt: skip
    assert findings["rewards between 0 and 1, which count as no fix"] == 1
    assert findings["jobs with fewer trials than they count"] == 1
    assert findings["trials without the name of their task"] == 1
    write(tmp_path / "job" / "t__6" / "result.json", trial(6, "t", 1.0, agent="b"))
    assert sorted(policy.name for policy in read(tmp_path / "job")[0]) == ["a m", "b m"]


def test_the_output_of_openhands(tmp_path):
    report = {"empty_generation": False, "resolved": False, "failed_apply_patch": False, "error_eval": False}
    output = ">>>>> Start Test Output\nPASSED f\nFAILED a\n>>>>> End Test Output\n"
    write(
        tmp_path / "output.jsonl",
        [
            {"instance_id": "x__x-1", "test_result": {"git_patch": "+a", "report": report, "test_output": output}},
            {"instance_id": "x__x-2", "test_result": {"git_patch": ""}, "report": report | {"empty_generation": True}},
            {"instance_id": "x__x-3", "git_patch": "+a", "report": report | {"failed_apply_patch": True}},
            {"instance_id": "x__x-4", "git_patch": "+a", "report": report | {"test_timeout": True}},
            {
                "instance_id": "x__x-5",
                "git_patch": "+a",
                "fine_grained_report": {"resolved": False, "eval_report": TESTS},
            },
            {"instance_id": "x__x-6", "test_result": {"git_patch": "+a"}, "report": report | {"resolved": True}},
        ],
    )
    results, _ = only(tmp_path / "output.jsonl")
    assert results["x__x-1"].statuses == {"f": "PASSED", "a": "FAILED"}
    assert results["x__x-2"].empty
    assert results["x__x-3"].applied is False
    assert (results["x__x-4"].resolved, results["x__x-4"].why) == (None, "its tests timed out")
    assert results["x__x-5"].pass_to_pass.failed_ids == ("b",)
    assert results["x__x-6"].resolved is True


def test_a_table_in_plain_csv(tmp_path):
    text = (
        "Task,Policy,Sample,Fixed,Broken,repository\n"
        "t,old,0,1,0,r\nt,old,1,true,2,r\nt,new,0,0,,r\nt,new,1,maybe,-1,r\n,new,1,1,1,r\n"
    )
    policies, findings = read(write(tmp_path / "table.csv", text))
    found = {
        (policy.name, sample): (results["t"].fix, results["t"].broke)
        for policy in policies
        for (_, sample), results in policy.samples.items()
    }
    assert found == {
        ("old", 0): (True, False), ("old", 1): (True, True), ("new", 0): (False, None), ("new", 1): (None, None)
    }  # fmt: skip
    assert findings["rows of a table with a value that cannot be read"] == 3


def test_names_that_are_no_text_are_left_out(tmp_path):
    lines = [json.dumps({"task": name, "policy": "p", "fixed": 1}) + "\n" for name in ("\ud800", "t", "")]
    results, findings = only(write(tmp_path / "table.json", "".join(lines)))
    assert [*results] == ["t"]
    assert findings["results whose names are empty or no text, left out"] == 1


def test_links_pipes_and_binary_files_are_named_and_end(tmp_path):
    import os

    write(tmp_path / "run" / "x__x-1" / "report.json", REPORT)
    (tmp_path / "run" / "loop").symlink_to(tmp_path / "run", target_is_directory=True)
    (tmp_path / "run" / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "run" / "pipe")
    (tmp_path / "run" / "junk").write_bytes(b"\xff\xd8\0junk" * 999)
    (tmp_path / "run" / "deep.json").write_text("[" * 100_000)
    (tmp_path / "run" / "doubled.json").write_text('{"x__x-1": {"resolved": true}, "x__x-1": {"resolved": false}}')
    results, findings = only(tmp_path / "run")
    assert [*results] == ["x__x-1"]
    assert findings["links to folders, which are not followed"] == 1
    assert findings["files that cannot be read"] == 2
    assert findings["JSON with doubled keys, left out"] == 1
    assert findings["files of no known format"] == 3


def test_a_format_that_is_forced_reads_no_other(tmp_path):
    write(tmp_path / "x__x-1" / "report.json", REPORT)
    write(tmp_path / "table.csv", "task,policy,fixed\nt,p,1\n")
    assert [policy.name for policy in read_policies(tmp_path, Findings(), "table")] == ["p"]
    with pytest.raises(UserError, match="known formats: swe-bench, summary"):
        read_policies(tmp_path, Findings(), "parquet")
