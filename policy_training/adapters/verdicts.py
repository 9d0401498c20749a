"""The one reward of all adapters: answers to tasks in, verdicts out. Each adapter only converts to and from it.

A verdict is a training value or *unscored*, which is not 0: what the policy did not cause is retried here, and is then
the adapter's to leave out in the way of its trainer. What the policy caused (a time-out, a broken build) scores low.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec

from regrade.datasets.episodes import Episode
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.analysis.component_effects import component_values, price_name
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.attempts import Attempt, JudgedAttempt, judge_with_evidence
from regrade.policy_training.environments.reward_components import component_names, paid_attempt
from regrade.policy_training.environments.training_reward import TrainingReward, training_reward_of
from regrade.policy_training.policies.task_descriptions import ChatPrompt
from regrade.rewards.algebra import Reward
from regrade.rewards.evidence import End, EvidenceSet, Integrity, TestRun

PatchOf = Callable[[Task, str], Patch | None]
"""The patch of an answer to a task; None: the answer is malformed."""
FACTS = ("resolved", "fixed", "broke", "no_op", "malformed", "tampered")
"""Components of every verdict beside the parts of its reward, where they are known; see `Verdict.components`."""
AT_ONCE = 64
"""Answers of `of_one` that are judged at the same time, or two per worker of the scorer if that is more; each needs a
thread that waits for the scorer's workers."""
RETRIES, FIRST_PAUSE = 2, 1.0
"""Further attempts at what could not be scored, and the pause in seconds before the first; each later one doubles."""


def patch_of_chat_answer(task: Task, answer: str) -> Patch | None:
    """The patch of SEARCH/REPLACE edits or of a unified diff, as `ChatPrompt` asks for."""
    return ChatPrompt(task).patch(answer)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer is worth to a trainer, and why."""

    value: float | None
    """The training value; None: unscored, which is not 0."""
    components: dict[str, float] = {}
    """Name -> number, under the same names in every trainer; empty if unscored, so that no mean counts it.

    The value of each leaf of the reward, by its name; of each gate, `only_if(NAME)`; of each cause with a price,
    `price(CAUSE)`: 1 if it is paid, else 0. And the facts, where known: `fixed` is the share of the FAIL_TO_PASS tests
    that pass; `resolved`, `broke`, `no_op`, `malformed` and `tampered` are 1 or 0.
    """
    cause: str = ""
    """Unscored: the reason. Scored: the cause whose price is paid (`TrainingReward.prices`); empty: the reward's."""
    flags: tuple[str, ...] = ()
    """What is known to be so: the facts that are 1 (without `fixed`), `uncompilable`, and how the run ended if early:
    `timeout`, `memory`, `crashed`, `not_applied`."""
    explanation: str = ""
    """For people: the tree of contributions, or the reason in one line."""

    @property
    def is_scored(self) -> bool:
        return self.value is not None


class Answer(msgspec.Struct, frozen=True):
    """What a policy answered to a task: a patch, a text that contains one, or the episode of an agent.

    Raises:
        UserError: none of them, or several, are given.
    """

    task_id: str
    patch: str | None = None
    """A unified diff; the empty text changes nothing."""
    text: str | None = None
    """A message of a model, from which `Verdicts.patch_of` reads the patch."""
    episode: Episode | None = None
    """Judged by its tree at the end; malformed if no step has an action."""
    lost: str = ""
    """The reason, not caused by the policy, for which the answer does not count: it is unscored. Empty: it counts."""

    def __post_init__(self) -> None:
        given = [name for name in ("patch", "text", "episode") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UserError(
                f"the answer to task {self.task_id!r} has {' and '.join(given) or 'no patch, text or episode'}: "
                "give exactly one of patch, text and episode"
            )


class Verdicts:
    """Judges answers to tasks by one reward.

        with Scorer() as scorer:
            verdicts = Verdicts(load_tasks(split="train"), scorer, 0.8 * tests + 0.2 * impact)
            (verdict,) = verdicts.of([Answer("add-1", text=completion)])

    All methods may be called from several threads.
    """

    def __init__(
        self,
        tasks: Iterable[Task] | Mapping[str, Task],
        scorer: Scorer,
        reward: Reward | TrainingReward,
        patch_of: PatchOf = patch_of_chat_answer,
        *,
        retries: int = RETRIES,
        also_gather: Collection[type] = (),
    ) -> None:
        """
        Args:
            tasks: those that answers name.
            scorer: must stay open. It runs what the reward needs: of a reward of static evidence, nothing.
            reward: a plain reward has no price for any cause, and pays 0 for a malformed answer.
            patch_of: reads the patch of `Answer.text`.
            retries: further attempts at answers that could not be scored, with growing pauses.
            also_gather: types of evidence beyond what the reward needs: with `TestRun`, all facts are known.
        """
        found = tasks.values() if isinstance(tasks, Mapping) else tasks
        self.tasks: Mapping[str, Task] = {task.id: task for task in found}
        self.scorer = scorer
        self.reward = training_reward_of(reward)
        self.patch_of = patch_of
        self._pauses = [FIRST_PAUSE * 2**number for number in range(retries)]
        self._needs = _needs(self.reward) | set(also_gather)
        self._threads = ThreadPoolExecutor(max(AT_ONCE, 2 * scorer.workers), thread_name_prefix="regrade-verdict")

    def of(self, answers: Sequence[Answer]) -> list[Verdict]:
        """The verdict of each answer, in order; one batch for the scorer, in which equal patches run once.

        Raises:
            UserError: an answer names an unknown task, or the reward is wrong.
        """
        return [verdict_of(attempt, evidence, self.reward) for attempt, evidence in self.judged(answers)]

    def judged(self, answers: Sequence[Answer]) -> list[JudgedAttempt]:
        """The attempts behind the verdicts of `of`."""
        rollouts = [self._rollout(answer, sample) for sample, answer in enumerate(answers)]
        judged = self._judged(rollouts)
        for pause in self._pauses:
            lost = [place for place, each in enumerate(judged) if _could_not_be_scored(each)]
            if not lost:
                break
            time.sleep(pause)
            for place, again in zip(lost, self._judged([rollouts[place] for place in lost]), strict=True):
                judged[place] = again
        return judged

    async def of_one(self, answer: Answer) -> Verdict:
        """The verdict of one answer, without blocking the event loop. Any number of calls may run concurrently.

        Raises:
            UserError: see `of`.
        """
        (verdict,) = await self.of_many([answer])
        return verdict

    async def of_many(self, answers: Sequence[Answer]) -> list[Verdict]:
        """`of`, without blocking the event loop.

        Raises:
            UserError: see `of`.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(self.of, answers))

    @property
    def component_names(self) -> tuple[str, ...]:
        """Every name that `Verdict.components` may have, for trainers that need equal keys in every row."""
        return (*component_names(self.reward.reward), *map(price_name, self.reward.prices), *FACTS)

    def is_malformed(self, answer: Answer) -> bool:
        """Has the answer no readable patch? Nothing runs."""
        return self._patch(self.task(answer.task_id), answer) is None

    def task(self, task_id: str) -> Task:
        """Raises UserError: no task has this id."""
        if task_id not in self.tasks:
            few = ", ".join(map(repr, list(self.tasks)[:3])) or "none"
            raise UserError(
                f"unknown task {task_id!r}: {len(self.tasks)} tasks are loaded (such as {few}); "
                "load the tasks that the data set names"
            )
        return self.tasks[task_id]

    def _judged(self, rollouts: Sequence[Rollout]) -> list[JudgedAttempt]:
        return judge_with_evidence(rollouts, self.tasks, self.scorer, self.reward, self._needs)

    def _rollout(self, answer: Answer, sample: int) -> Rollout:
        patch = self._patch(self.task(answer.task_id), answer)
        return Rollout(
            task_id=answer.task_id,
            policy="the trained policy",
            temperature=1.0,
            sample=sample,
            seed=0,
            patch=patch or Patch(""),
            completion=answer.text or "",
            well_formed=patch is not None,
            lost=answer.lost,
            episode=answer.episode,
        )

    def _patch(self, task: Task, answer: Answer) -> Patch | None:
        """None: the answer is malformed."""
        if answer.episode is not None:
            return answer.episode.patch if any(step.tool for step in answer.episode.steps) else None
        try:
            return Patch(answer.patch) if answer.patch is not None else self.patch_of(task, answer.text or "")
        except PatchError:
            return None


def _needs(reward: TrainingReward) -> frozenset[type]:
    """The evidence that the reward and its prices need; no more, since a reward model is cheap as it runs no tests."""
    of_prices = {TestRun: reward.breakage, Integrity: reward.tampering}
    return reward.reward.needs | {kind for kind, price in of_prices.items() if price is not None}


def _could_not_be_scored(judged: JudgedAttempt) -> bool:
    """Is it unscored as evidence is missing, which another attempt may get?"""
    return judged.attempt.reward is None and judged.evidence is not None and bool(judged.evidence.infrastructure)


def answer_prompts(tasks: Iterable[Task]) -> list[dict[str, Any]]:
    """The rows of a data set for answers in one message: `prompt`, the messages of a chat, and `task_id`.

    The prompt says how to answer, what fails, and what the relevant files contain; `Verdicts` reads such answers.
    """
    return [{"prompt": ChatPrompt(task).messages, "task_id": task.id} for task in tasks]


def verdict_of(attempt: Attempt, evidence: EvidenceSet | None, reward: TrainingReward) -> Verdict:
    """The verdict on an attempt.

    Args:
        evidence: what it was judged by; None: it was not executed.
    """
    facts = _facts(attempt, evidence)
    flags = tuple(name for name, number in facts.items() if number == 1.0 and name != "fixed") + _further_flags(attempt)
    paid = paid_attempt(attempt, reward)
    if paid is None:
        cause = _why_unscored(attempt, evidence)
        return Verdict(value=None, cause=cause, flags=flags, explanation=f"unscored: {cause}")
    components = {**component_values(paid, reward.prices), **facts}
    return Verdict(
        value=attempt.reward, components=components, cause=attempt.cause, flags=flags, explanation=_explained(attempt)
    )


def _facts(attempt: Attempt, evidence: EvidenceSet | None) -> dict[str, float]:
    """Name in `FACTS` -> number; absent where it is not known."""
    rollout, run = attempt.rollout, attempt.run
    if rollout.lost:
        return {}
    is_unchanged = attempt.is_empty or not rollout.well_formed
    known: dict[str, float] = {"no_op": float(attempt.is_empty and rollout.well_formed)}
    known["malformed"] = float(not rollout.well_formed)
    if run is not None and run.fail_to_pass:
        known["fixed"] = len(run.fixed) / len(run.fail_to_pass)
    elif run is None and (is_unchanged or not attempt.compiles):
        known["fixed"] = 0.0
    if run is not None or is_unchanged or not attempt.compiles:
        known["resolved"], known["broke"] = float(attempt.verified), float(attempt.broke)
    if evidence is not None and Integrity in evidence.records:
        known["tampered"] = float(bool(attempt.tampering))
    return {name: known[name] for name in FACTS if name in known}


def _further_flags(attempt: Attempt) -> tuple[str, ...]:
    early = attempt.run is not None and attempt.run.end is not End.COMPLETED
    ended = (attempt.run.end.value.replace(" ", "_"),) if attempt.run is not None and early else ()
    return (*(() if attempt.compiles else ("uncompilable",)), *ended)


def _why_unscored(attempt: Attempt, evidence: EvidenceSet | None) -> str:
    breakdown = attempt.breakdown
    missing = () if evidence is None else tuple(dict.fromkeys(evidence.infrastructure.values()))
    return attempt.rollout.lost or (breakdown is not None and breakdown.cause) or "; ".join(missing) or "not executed"


def _explained(attempt: Attempt) -> str:
    price = f"{attempt.cause}: {attempt.reward:g}" if attempt.cause else ""
    return "\n".join(filter(None, [price, "" if attempt.breakdown is None else str(attempt.breakdown)]))


def unscored_groups(task_ids: Sequence[str], verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts, in order, where one unscored verdict makes its whole group unscored: the others would be compared
    with a group that lacks it.

    Args:
        task_ids: of each verdict, the id of its task, or whatever names its group.
    """
    lost = {group: verdict for group, verdict in zip(task_ids, verdicts, strict=True) if not verdict.is_scored}
    return [
        _left_out(verdict, lost[group]) if group in lost else verdict
        for group, verdict in zip(task_ids, verdicts, strict=True)
    ]


def _left_out(verdict: Verdict, lost: Verdict) -> Verdict:
    if not verdict.is_scored:
        return verdict
    cause = f"another attempt of its group is unscored: {lost.cause}"
    return Verdict(value=None, cause=cause, flags=verdict.flags, explanation=f"unscored: {cause}")
