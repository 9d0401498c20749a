"""`regrade compare` as a gate, `regrade evaluate plan`, and comparisons of runs that should not be compared."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from regrade.evaluators.storage import journal
from regrade.evaluators.storage.rows import COLUMNS
from regrade.evaluators.storage.run import Run

DOCS = Path(__file__).resolve().parents[2] / "docs"


def row(policy: str, task: int, fixed: bool, broke: bool, sample: int = 0) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS, "") | {
        "policy": policy, "task": f"t{task}", "repository": "r", "function": f"f{task}", "temperature": 0.0,
        "sample": sample, "seed": 0, "empty": False, "well_formed": True, "applied": True, "status": "scored",
        "reward": 0.3, "fix": int(fixed), "fail_to_pass": 1, "fixed": int(fixed), "guarded": 10, "broken": int(broke),
        "newly_skipped": 0, "broke": int(broke), "clean_fix": int(fixed and not broke), "tampering": None, "tokens": 1,
        "generation_seconds": 0.0, "execution_seconds": 0.0, "changed_lines": 2, "broken_tests": [], "parts": [],
    }  # fmt: skip


def rows(policy: str, fixes: int, breaks: int, *, tasks: int = 60, samples: int = 1) -> list[dict[str, Any]]:
    """Attempts at `tasks` tasks, the first `fixes` with a fix, the last `breaks` with a breakage."""
    return [row(policy, n, n < fixes, n >= tasks - breaks, s) for n in range(tasks) for s in range(samples)]


def a_run(folder: Path, role: str, found: list[dict[str, Any]]) -> Run:
    run = Run(folder)
    name = found[0]["policy"]
    journal.append(run.evaluation(name), found)
    run.add_policy(name, role)
    return run


def pair(folder: Path, fixes: int = 10, breaks: int = 6) -> tuple[Run, Run]:
    """A baseline that fixes 10 of 60 and breaks 6, and a candidate."""
    return (
        a_run(folder / "old", "baseline", rows("sft", 10, 6)),
        a_run(folder / "new", "candidate", rows("rl", fixes, breaks)),
    )


# ------------------------------------------------------------ the gate


FAILS = {"regressed": 1, "inconclusive": 1, "open": 1, "not-improved": 1, "never": 0}


@pytest.mark.parametrize(
    ("fixes", "breaks", "margin", "verdict", "codes"),
    [
        (50, 2, 0.02, "improved", dict.fromkeys(FAILS, 0)),
        (10, 50, 0.02, "regressed", FAILS),
        (50, 8, 0.02, "inconclusive", FAILS | {"regressed": 0}),
        (11, 6, 0.02, "no difference shown", FAILS | {"regressed": 0, "inconclusive": 0}),
        (11, 6, 0.3, "no difference shown", FAILS | {"regressed": 0, "inconclusive": 0, "open": 0}),
    ],
)
def test_fail_on_selects_the_failing_verdicts(regrade, tmp_path, fixes, breaks, margin, verdict, codes):
    old, new = pair(tmp_path, fixes, breaks)
    for fail_on, code in codes.items():
        outcome = regrade("compare", old.folder, new.folder, "--fail-on", fail_on, "--margin", margin, "--json")
        assert outcome.code == code, fail_on
        assert json.loads(outcome.out)["verdict"] == verdict


def test_a_gate_stays_shut_without_a_comparison(regrade, tmp_path):
    old, _ = pair(tmp_path)
    few = a_run(tmp_path / "few", "candidate", rows("rl", 10, 6, tasks=50))
    codes = [regrade("compare", old.folder, few.folder, "--fail-on", x).code for x in ("regressed", "not-improved")]
    assert codes == [2, 2]
    assert regrade("compare", old.folder, few.folder, "--fail-on", "never").code == 0
    assert regrade("compare", old.folder, few.folder, "--fail-on", "sometimes").code == 2


def test_markdown_is_for_the_summary_of_a_job(regrade, tmp_path):
    old, new = pair(tmp_path, 10, 50)
    outcome = regrade("compare", old.folder, new.folder, "--markdown")
    assert outcome.code == 1
    assert "### ❌ rl against sft: **regressed**" in outcome.out
    table = [line for line in outcome.out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert any(line.startswith("| Breakage |") and "worse" in line for line in table)
    assert regrade("compare", old.folder, new.folder, "--markdown", "--json").is_refusal("--json", "--markdown")


def test_names_cannot_write_markdown(regrade, tmp_path):
    old, _ = pair(tmp_path)
    odd = a_run(tmp_path / "odd", "candidate", rows("a|b <img> [x](y)", 10, 6))
    out = regrade("compare", old.folder, odd.folder, "--markdown").out
    assert r"a\|b \<img\> \[x\](y)" in out
    assert "<img>" not in out


def test_the_terminal_shows_noise_pairs_and_bounds(regrade, tmp_path):
    old, new = pair(tmp_path)
    assert "McNemar, exact, p = 1.000, Newcombe [" in " ".join(regrade("compare", old.folder, new.folder).out.split())
    several = a_run(tmp_path / "several", "baseline", rows("sft", 10, 6, samples=2))
    path = several.evaluation("sft")
    path.write_text(path.read_text().replace('"clean_fix": 1', '"clean_fix": 0', 1))
    out = " ".join(regrade("compare", several.folder, new.folder).out.split())
    assert "A/A: with other seeds, sft differs from itself by up to" in out


def test_every_command_of_the_documented_workflow_exists(regrade):
    """The example for GitHub Actions is valid YAML, and its commands take the options that it gives them."""
    text = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    workflows = [yaml.safe_load(each) for each in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    assert workflows
    for workflow in workflows:
        assert {"on", True} & workflow.keys()  # YAML 1.1 reads `on` as true
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        script = "\n".join(step["run"] for step in steps if "run" in step).replace("\\\n", " ")
        commands = [line.strip() for line in script.splitlines() if line.strip().startswith("regrade ")]
        assert any("--fail-on regressed" in command for command in commands)
        for command in commands:
            words = shlex.split(re.split(r"\s(?:>>|>|\|)", command)[0])[1:]
            outcome = regrade(*words, "--help")
            assert outcome.code == 0, (command, outcome.err)


# ------------------------------------------------------------ incomparable runs


def test_missing_attempts_bound_the_verdict(regrade, tmp_path):
    old = a_run(tmp_path / "old", "baseline", rows("sft", 20, 6, samples=2))
    kept = [each for n, each in enumerate(rows("rl", 30, 6, samples=2)) if n not in (0, 8, 16, 24, 32, 40)]
    new = a_run(tmp_path / "new", "candidate", kept)
    found = json.loads(regrade("compare", old.folder, new.folder, "--json").out)
    clean = found["metrics"]["fix_and_clean"]
    assert found["n_missing"] == 6
    assert clean["difference"] == pytest.approx(10 / 60)
    assert clean["worst"] == pytest.approx(10 / 60 - 6 / 120)
    assert clean["best"] == pytest.approx(10 / 60)
    assert (found["verdict"], found["worst"]) == ("inconclusive", "regressed")
    depends = [warning for warning in found["warnings"] if "the verdict depends on them: regressed if" in warning]
    assert depends[0].startswith("6 attempts")


def test_too_many_missing_attempts_are_not_compared(regrade, tmp_path):
    old = a_run(tmp_path / "old", "baseline", rows("sft", 20, 6, samples=2))
    whole = rows("rl", 30, 6, samples=2)
    new = a_run(tmp_path / "new", "candidate", [each for each in whole if each["sample"] == 0 or each["task"] < "t3"])
    outcome = regrade("compare", old.folder, new.folder)
    assert outcome.code == 2
    assert "of the candidate's attempts are missing" in outcome.out
    assert "such as sample 1 of seed 0 at 't3'" in outcome.out
    assert "run the same evaluation again" in outcome.out


def test_a_half_written_file_is_compared_with_a_warning(regrade, tmp_path):
    old, new = pair(tmp_path)
    path = new.evaluation("rl")
    path.write_text(path.read_text()[:-30])
    outcome = regrade("compare", old.folder, new.folder)
    assert outcome.code == 2, "a whole task is missing"
    assert "not evaluated on the same tasks" in outcome.out
    assert "rl.jsonl ends in an incomplete line" in " ".join(outcome.out.split())


def test_empty_runs_are_refused(regrade, tmp_path):
    old, new = pair(tmp_path)
    new.evaluation("rl").write_text("")
    assert regrade("compare", old.folder, new.folder).is_refusal("rl.jsonl", "no rows")
    empty = Run(tmp_path / "empty")
    assert regrade("compare", old.folder, empty.folder).is_refusal("no policy is its candidate")
    assert regrade("compare", old.folder, tmp_path / "nowhere").is_refusal("nowhere", "no such file")


def test_files_with_several_policies_or_other_content_are_one_line(regrade, tmp_path):
    old, _ = pair(tmp_path)
    both = tmp_path / "both"
    for name in ("sft", "rl"):
        journal.append(both / f"{name}.jsonl", rows(name, 10, 6))
    outcome = regrade("compare", old.folder, both)
    assert outcome.is_refusal("the candidate has several values of policy (rl, sft)", "--candidate-policy")
    assert regrade("compare", old.folder, both, "--candidate-policy", "rl").code == 0
    (tmp_path / "picture.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\n")
    assert regrade("compare", old.folder, tmp_path / "picture.jsonl").is_refusal("picture.jsonl, line 1")
    (tmp_path / "bare").mkdir()
    assert regrade("compare", old.folder, tmp_path / "bare").is_refusal("bare", "no rows")


def test_different_versions_are_refused_unless_they_are_allowed(regrade, tmp_path):
    old, new = pair(tmp_path)
    old.update(versions={"regrade": "0.0.9", "torch": "1.0"})
    outcome = regrade("compare", old.folder, new.folder)
    assert outcome.is_refusal("regrade 0.0.9", "--mixed-versions")
    assert "torch" not in outcome.err
    allowed = regrade("compare", old.folder, new.folder, "--mixed-versions", "--json")
    assert allowed.code == 0
    assert any("regrade 0.0.9" in warning for warning in json.loads(allowed.out)["warnings"])


def test_a_run_that_went_on_with_another_version_is_mixed_as_well(regrade, tmp_path):
    old, new = pair(tmp_path)
    old.record_continuation()
    assert regrade("compare", old.folder, new.folder).code == 0
    old.update(versions={"pytest": "6.2"})
    old.record_continuation()
    assert regrade("compare", old.folder, old.folder, "--candidate-policy", "sft").is_refusal("started with pytest 6.2")


def test_different_rewards_are_not_compared(regrade, tmp_path):
    old, _ = pair(tmp_path)
    other = a_run(tmp_path / "other", "candidate", [x | {"reward_name": "mine"} for x in rows("rl", 10, 6)])
    found = json.loads(regrade("compare", old.folder, other.folder, "--json").out)
    assert "reward" not in found["metrics"]
    assert "fix_rate" in found["metrics"]
    assert any("different rewards" in warning for warning in found["warnings"])


def test_a_configuration_of_another_shape_is_no_plan(regrade, tmp_path):
    old, new = pair(tmp_path)
    for odd in ([1], {"comparison": 3}, {"comparison": {"margin": "2"}, "continued_with": []}):
        manifest = json.loads(old.manifest_path.read_text())
        old.manifest_path.write_text(json.dumps(manifest | {"configuration": odd}))
        assert regrade("compare", old.folder, new.folder).code == 0


# ------------------------------------------------------------ planning


def test_a_plan_of_assumed_discordance(regrade):
    found = json.loads(regrade("evaluate", "plan", "--discordance", "0.1", "--effect", "0.05", "--json").out)
    assert found["measures"]["assumed"]["attempts"]["1"]["tasks"] == 312
    shown = regrade("evaluate", "plan", "--discordance", "0.2", "--effect", "0.1", "--tasks", "155").out
    assert "155" in shown
    assert "10.0 points" in shown
    several = regrade("evaluate", "plan", "--discordance", "0.2", "--by-chance", "0.1", "--json")
    tasks = [each["tasks"] for each in json.loads(several.out)["measures"]["assumed"]["attempts"].values()]
    assert len(tasks) == 4
    assert tasks == sorted(tasks, reverse=True)


def test_a_plan_from_a_stored_run(regrade, tmp_path):
    old, new = pair(tmp_path, fixes=22, breaks=6)
    found = json.loads(regrade("evaluate", "plan", old.folder, new.folder, "--json").out)
    assert found["measures"]["fix_and_clean"]["discordance"] == pytest.approx(12 / 60)
    assert "breakage_incidence" not in found["measures"], "there the two never differ"
    assert found["measures"]["fix_and_clean"]["by_chance"] is None


def test_a_plan_from_a_single_policy_is_its_noise(regrade, tmp_path):
    mixed = [row("sft", n, (n + s) % 3 == 0, False, s) for n in range(60) for s in range(3)]
    run = a_run(tmp_path / "run", "baseline", mixed)
    outcome = regrade("evaluate", "plan", run.folder, "--json")
    assert "a single policy" in outcome.err
    found = json.loads(outcome.out)["measures"]["fix_and_clean"]
    assert found["discordance"] == found["by_chance"] == pytest.approx(2 / 3)


def test_a_declared_margin_is_the_one_that_is_compared_with(regrade, tmp_path):
    plan = ("evaluate", "plan", "--discordance", "0.1", "--margin", "0.25", "--declare")
    assert regrade(*plan, tmp_path / "new").code == 0
    old, new = pair(tmp_path)
    found = json.loads(regrade("compare", old.folder, new.folder, "--json").out)
    assert found["margin"] == 0.25
    other = json.loads(regrade("compare", old.folder, new.folder, "--margin", "0.3", "--json").out)
    assert any("0.3 differs from the one declared" in warning for warning in other["warnings"])
    assert regrade(*plan, new.folder).is_refusal("'rl' was evaluated already")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--discordance 0.1"]),
        (["--discordance", "0.1", "--effect", "0.2"], ["discordance of at least 0.2"]),
        (["--discordance", "2"], ["discordance", "2"]),
        (["RUN", "--discordance", "0.1"], ["not both"]),
        (["RUN"], ["nothing can be measured"]),
        (["nowhere"], ["nowhere", "no such file"]),
    ],
)
def test_an_impossible_plan_is_one_line(regrade, tmp_path, arguments, words):
    run = a_run(tmp_path / "run", "baseline", rows("sft", 10, 6))
    outcome = regrade("evaluate", "plan", *(run.folder if each == "RUN" else each for each in arguments))
    assert outcome.is_refusal(*words)


def test_explain_names_its_own_option_where_a_run_has_several_candidates(regrade, tmp_path):
    run = a_run(tmp_path / "run", "candidate", rows("rl", 2, 0, tasks=3))
    other = rows("dpo", 1, 0, tasks=3)
    journal.append(run.evaluation("dpo"), other)
    run.add_policy("dpo", "candidate")
    assert regrade("explain", run.folder, "t0").is_refusal("2 policies are its candidate", "choose with --policy from")


def test_what_a_handful_of_tasks_cannot_show_is_no_number_of_points(regrade, tmp_path):
    old = a_run(tmp_path / "old", "baseline", rows("sft", 0, 0, tasks=3))
    new = a_run(tmp_path / "new", "candidate", rows("rl", 3, 0, tasks=3))
    told = " ".join(regrade("compare", old.folder, new.folder).out.split())
    assert "Minimum detectable effect at 80 % power: none of any size in clean fixes" in told
    assert "| >100 |" in regrade("compare", old.folder, new.folder, "--markdown").out


def test_the_difference_of_rewards_lies_where_rewards_do(regrade, tmp_path):
    old = a_run(tmp_path / "old", "baseline", [r | {"reward": 0.0} for r in rows("sft", 0, 0, tasks=6)])
    new = a_run(tmp_path / "new", "candidate", [r | {"reward": 0.75} for r in rows("rl", 6, 0, tasks=6)])
    found = json.loads(regrade("compare", old.folder, new.folder, "--json").out)["metrics"]["reward"]
    assert found["low"] < 0.75 <= found["high"] <= 1
