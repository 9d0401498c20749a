"""Answers in, verdicts out: what every adapter builds on, with real executions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.adapters import verdicts as core
from regrade.policy_training.adapters.verdicts import Answer, Verdict, Verdicts, answer_prompts, unscored_groups
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD
from regrade.rewards import Diff, Score, reward
from regrade.rewards.evidence import EvidenceSet


@reward
def short(diff: Diff) -> Score:
    return Score(1.0 if diff.changed_lines <= 2 else 0.5)


def edit(old: str, new: str) -> str:
    return f"library.py\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"


BREAKS = edit("    return number * 2", "    return number * 3")
HANGS = edit("    return number * 2", "    while True:\n        pass")
CHANGES_NOTHING = edit("    return number * 2", "    return number * 2")


@pytest.fixture(scope="module")
def judge(tasks: list[Task], scorer: Scorer) -> Verdicts:
    return Verdicts(tasks, scorer, DEFAULT_TRAINING_REWARD)


@pytest.fixture
def fixing(tasks: list[Task]) -> str:
    assert tasks[0].reference is not None
    return tasks[0].reference.text


def test_one_batch_of_all_kinds_of_answers(judge: Verdicts, fixing: str) -> None:
    answers = [
        Answer("second", patch=fixing),
        Answer("second", text=f"Here it is:\n{BREAKS}"),
        Answer("second", text="I don't know."),
        Answer("second", patch=""),
        Answer("second", text=edit("    return number * 2", "    return number * (2")),
        Answer("second", patch=fixing, lost="its endpoint died"),
    ]
    fixed, broke, malformed, unchanged, uncompilable, lost = judge.of(answers)
    assert (fixed.value, fixed.cause, fixed.flags) == (1.0, "", ("resolved",))
    assert fixed.components["tests"] == fixed.components["fixed"] == fixed.components["resolved"] == 1.0
    assert fixed.components["broke"] == fixed.components["price(breakage)"] == 0.0
    assert fixed.explanation.startswith("1.000\n")
    assert broke.value is not None
    assert broke.value < 0
    assert (broke.cause, broke.flags) == ("breakage", ("broke",))
    assert broke.components["price(breakage)"] == 1.0
    assert "breakage: -0.8" in broke.explanation
    assert (malformed.value, malformed.cause, malformed.flags) == (-0.6, "malformed", ("malformed",))
    assert (unchanged.value, unchanged.cause, unchanged.flags) == (0.0, "no_op", ("no_op",))
    assert (uncompilable.value, uncompilable.flags) == (-1.2, ("broke", "uncompilable"))
    assert (lost.value, lost.cause, lost.components) == (None, "its endpoint died", {})
    assert {name for verdict in (fixed, broke) for name in verdict.components} >= {*core.FACTS}


def test_the_policys_own_time_out_is_a_low_score(tasks: list[Task], scorer: Scorer) -> None:
    from dataclasses import replace

    short_limit = replace(tasks[0], limits=replace(tasks[0].limits, wall_seconds=2))
    (verdict,) = Verdicts([short_limit], scorer, DEFAULT_TRAINING_REWARD).of([Answer("second", text=HANGS)])
    assert verdict.value is not None
    assert verdict.value < 0
    assert verdict.cause == "breakage"
    assert "timeout" in verdict.flags


def test_a_plain_reward_of_static_evidence_runs_no_test(tasks: list[Task], scorer: Scorer, fixing: str) -> None:
    before = scorer.stats.executions
    (verdict,) = Verdicts(tasks, scorer, short).of([Answer("second", patch=fixing)])
    assert verdict.value == verdict.components["short"] == 1.0
    assert not {"fixed", "resolved", "broke", "tampered"} & {*verdict.components}
    assert scorer.stats.executions == before


def test_a_scorer_of_many_workers_gets_as_many_answers_at_once(tasks: list[Task], tmp_path: Path) -> None:
    together = threading.Barrier(100, timeout=60)

    def unreadable(*_: object) -> None:
        together.wait()

    async def at_once(verdicts: Verdicts) -> list[Verdict]:
        return await asyncio.gather(*(verdicts.of_one(Answer("second", text="?")) for _ in range(100)))

    with Scorer(workers=100, cache=tmp_path) as scorer:
        judged = asyncio.run(at_once(Verdicts(tasks, scorer, DEFAULT_TRAINING_REWARD, patch_of=unreadable)))
    assert {verdict.flags for verdict in judged} == {("malformed",)}


class Failing(Scorer):
    """A scorer whose first gatherings get no test results, through no fault of a patch."""

    failures = 0
    asked: list[int]

    def gather(self, jobs: Sequence[Any], needs: Any, **more: Any) -> list[EvidenceSet]:
        self.asked.append(len(jobs))
        found = super().gather(jobs, needs, **more)
        if len(self.asked) > self.failures:
            return found
        return [EvidenceSet({}, dict.fromkeys(needs, "the daemon died")), *found[1:]]


@pytest.fixture
def failing(evidence: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Failing]:
    monkeypatch.setattr(core, "FIRST_PAUSE", 0.01)
    with Failing(workers=1, cache=evidence) as scorer:
        scorer.asked = []
        yield scorer


def test_what_could_not_be_scored_is_retried_alone(tasks: list[Task], failing: Failing, fixing: str) -> None:
    failing.failures = 2
    verdicts = Verdicts(tasks, failing, DEFAULT_TRAINING_REWARD).of(
        [Answer("second", patch=fixing), Answer("second", text=BREAKS)]
    )
    assert failing.asked == [2, 1, 1]
    assert [verdict.value for verdict in verdicts] == [1.0, pytest.approx(-0.8)]


def test_after_all_retries_it_is_unscored_with_its_reason_and_so_is_its_group(
    tasks: list[Task], failing: Failing, fixing: str
) -> None:
    failing.failures = 9
    answers = [Answer("second", patch=fixing), Answer("second", text=BREAKS), Answer("add", text="No.")]
    verdicts = Verdicts(tasks, failing, DEFAULT_TRAINING_REWARD).of(answers)
    assert failing.asked == [2, 1, 1]
    assert verdicts[0].value is None
    assert "the daemon died" in verdicts[0].cause
    assert verdicts[1].value is not None
    left_out = unscored_groups([answer.task_id for answer in answers], verdicts)
    assert [verdict.value for verdict in left_out] == [None, None, -0.6]
    assert "another attempt of its group" in left_out[1].cause
    assert left_out[1].components == {}


def test_many_single_answers_are_judged_at_the_same_time(judge: Verdicts, fixing: str) -> None:
    async def all_of_them() -> list[Verdict]:
        return await asyncio.gather(
            *(judge.of_one(Answer("second", text=text)) for text in (fixing, BREAKS, "No.", fixing))
        )

    values = [verdict.value for verdict in asyncio.run(all_of_them())]
    assert values == [1.0, pytest.approx(-0.8), -0.6, 1.0]


def test_bad_input_is_one_clear_error(judge: Verdicts) -> None:
    with pytest.raises(UserError, match=r"unknown task 'third': 2 tasks are loaded \(such as 'second', 'add'\)"):
        judge.of([Answer("third", patch="")])
    with pytest.raises(UserError, match="no patch, text or episode: give exactly one"):
        Answer("second")
    with pytest.raises(UserError, match="patch and text"):
        Answer("second", patch="", text="")


def test_a_text_that_no_file_can_hold_is_malformed(judge: Verdicts) -> None:
    (verdict,) = judge.of([Answer("second", patch="--- a\ud800")])
    assert verdict.flags == ("malformed",)


def test_the_rows_of_a_data_set_name_tasks_and_say_how_to_answer(judge: Verdicts, tasks: list[Task]) -> None:
    rows = answer_prompts(tasks)
    assert [row["task_id"] for row in rows] == [task.id for task in tasks]
    system, user = rows[0]["prompt"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert "<<<<<<< SEARCH" in system["content"]
    assert tasks[0].fail_to_pass[0] in user["content"]
    example = system["content"].partition("then a block:")[2].partition("Give as few")[0]
    (verdict,) = judge.of([Answer(tasks[0].id, text=example)])
    assert verdict.flags == ("malformed",), "it is read, and its file does not exist"


def test_a_verdict_crosses_as_json() -> None:
    import msgspec

    verdict = Verdict(value=None, cause="the daemon died")
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
