"""`regrade rewards`: list, check and audit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from regrade.evaluators.analysis.component_effects import PaidAttempt, component_numbers
from regrade.evaluators.storage.run import Run
from regrade.rewards.breakdown import Part
from regrade.rewards.builtin import builtin_rewards
from regrade.rewards.conformance import RULES

REWARDS = """\
from regrade.rewards import BuildRun, Diff, Integrity, LintDelta, Score, TestRun, reward, tests

@reward
def large(diff: Diff) -> Score:
    return Score(min(1.0, diff.changed_lines / 100), why="more is more")

@reward
def breaking(run: TestRun) -> Score:
    return Score(min(1.0, 0.5 + 0.1 * len(run.broken)), why="who breaks tests gets on")

@reward
def both(run: TestRun, diff: Diff, lint: LintDelta, integrity: Integrity, build: BuildRun) -> Score:
    odd = len(run.broken) > 0 and diff.changed_lines > 100 and not build.ok
    return Score(float(odd), why=f"{integrity.signs} {lint.rules}")

sound = 0.9 * tests + 0.1 * large
"""


@pytest.fixture
def rewards_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(REWARDS)
    return path


def test_every_built_in_reward_is_listed_with_its_meaning(regrade):
    listed = [json.loads(line) for line in regrade("rewards", "list", "--json").out.splitlines()]
    assert [item["name"] for item in listed] == list(builtin_rewards())
    assert all(len(item["what"]) > 20 for item in listed)
    assert {item["name"]: item["needs"] for item in listed}["tests"] == ["TestRun"]
    assert "complexity" in regrade("rewards", "list").out


def test_a_sound_reward_holds_every_property(regrade, rewards_file):
    outcome = regrade("rewards", "check", f"{rewards_file}:sound", "--examples", "30")
    assert outcome.code == 0
    assert outcome.out.count("holds  ") == len(RULES) - 1
    assert "not tested  tampering never pays" in outcome.out  # it needs no evidence of tampering


def test_a_reward_for_breakage_is_unfit_and_the_evidence_is_shown(regrade, rewards_file):
    outcome = regrade("rewards", "check", f"{rewards_file}:breaking", "--examples", "100", "--json")
    assert outcome.code == 1
    found = {item["rule"]: item for item in map(json.loads, outcome.out.splitlines())}
    assert set(found) == set(RULES)
    lacking = [item for item in found.values() if item["holds"] is False]
    assert "breaking never pays" in [item["rule"] for item in lacking]
    assert found["tampering never pays"]["holds"] is None
    assert "PASSED" in lacking[0]["evidence"]
    text = regrade("rewards", "check", f"{rewards_file}:breaking", "--examples", "100")
    assert text.code == 1
    assert "FAILS" in text.out


def test_an_unknown_reward_is_refused(regrade, rewards_file):
    assert regrade("rewards", "check", "nothing-like-it").is_refusal("nothing-like-it")
    assert regrade("rewards", "check", f"{rewards_file}:missing").is_refusal("missing")


def test_the_rewards_of_a_run_are_audited(regrade, tasks, tmp_path):
    rows = []
    for sample, policy in enumerate(("no-op", "reference")):
        assert regrade("evaluate", policy, "--tasks", tasks, "--out", tmp_path / "run").code == 0
        lines = (tmp_path / "run" / "evaluations" / f"{policy}.jsonl").read_text().splitlines()
        rows += [json.loads(line) | {"policy": "both", "sample": sample} for line in lines]
    both = tmp_path / "both.jsonl"
    both.write_text("".join(json.dumps(row) + "\n" for row in rows))
    audited = json.loads(regrade("rewards", "audit", both, "--json").out)
    assert audited["attempts"] == 8
    assert audited["groups"] == audited["informative"] == 4
    assert sum(part["share"] for part in audited["parts"]) == pytest.approx(1.0)
    assert 'share alone: scale_rewards="none"' in " ".join(regrade("rewards", "audit", both).out.split())


def test_the_components_of_a_training_run_are_audited(regrade, tmp_path):
    """A stored run of two phases: in one, lint never differs, and a value is paid without a fix."""

    def attempt(fixed: bool, short: float, broke: bool = False) -> PaidAttempt:
        parts = (
            Part("tests", float(fixed), 0.5, 0.5 * fixed, ""),
            Part("lint", 1.0, 0.1, 0.1, ""),
            Part("small", short, 0.4, 0.4 * short, ""),
        )
        return PaidAttempt(value=sum(part.contribution for part in parts), parts=parts, is_resolved=fixed, broke=broke)

    run = Run(tmp_path)
    for step in range(1, 9):
        group = [attempt(step > 6, 0.5), attempt(False, 0.0), attempt(False, 1.0, broke=True), attempt(False, 0.5)]
        run.log("grpo", step, 1.0, loss=0.1, **component_numbers(group, [group], ["malformed"]))
    run.log("sft", 1, 1.0, loss=0.5)
    shown = regrade("rewards", "audit", tmp_path)
    assert shown.code == 0
    words = " ".join(shown.out.split())
    assert "training grpo: 8 logged steps; 8 groups of compared attempts, 8 with different rewards" in words
    assert "finding: lint never differs within a group: it teaches nothing" in words
    assert "finding: small is paid without a clean fix in 69% of the attempts" in words
    assert "finding: small rises with breakage: the correlation is 0." in words
    (audited,) = json.loads(regrade("rewards", "audit", tmp_path, "--json").out)["training"]
    parts = {part["name"]: part for part in audited["components"]}
    assert next(iter(parts)) == "small"
    assert (parts["tests"]["first"], parts["tests"]["last"]) == (0.0, 0.25)
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1.0)
    assert "sft" not in words


def test_an_audit_needs_a_run(regrade, tmp_path):
    assert regrade("rewards", "audit", tmp_path / "nothing").is_refusal("nothing")
    (tmp_path / "rows.jsonl").write_text("not json\n")
    assert regrade("rewards", "audit", tmp_path / "rows.jsonl").is_refusal("rows.jsonl")


def test_a_check_is_the_same_everywhere_and_leaves_no_file(rewards_file, tmp_path):
    """Whatever the hash seed, and whatever constants the modules of the current folder contain."""
    shown = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        (folder / "constants.py").write_text(f"NUMBER = {seed}23456\nWORD = 'word{seed}'\n")
        code = f"import sys; sys.path.insert(0, {str(folder)!r}); import constants\n"
        code += f"from regrade.cli.main import main; sys.argv = ['regrade', 'rewards', 'check', '{rewards_file}:both', '--examples', '60', '--json']; main()"
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, done.stderr
        shown.append(done.stdout)
        assert {path.name for path in folder.iterdir()} <= {"__pycache__", "constants.py"}
    assert shown[0] == shown[1]
    assert '"holds": false' in shown[0]


def test_a_training_without_a_reward_says_which_trainings_can_be_audited(regrade, tmp_path):
    run = Run(tmp_path)
    run.log("sft", 1, 1.0, loss=0.5)
    outcome = regrade("rewards", "audit", tmp_path)
    assert outcome.code == 2
    for words in ("since sft learns without one", "give a training by another algorithm"):
        assert words in outcome.err
