"""Preferences from executed scores: of two answers to one prompt, the one with the higher reward."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from scipy.stats import mannwhitneyu

from regrade.policy_training.environments.attempts import ScoredAnswer


@dataclass(frozen=True)
class Preference:
    """A pair of answers to one prompt."""

    task_id: str
    prompt: str
    chosen: str
    rejected: str
    margin: float
    """Difference of the two executed rewards; > 0."""


def pairs(answers: Sequence[ScoredAnswer], *, per_task: int | None = 8, seed: int = 0) -> list[Preference]:
    """Pairs of distinct answers to the same task with different rewards, tasks in order of their ids.

    Args:
        answers: executed ones, without unscored attempts (see `scored_answers`).
        per_task: maximum number of pairs per task, drawn by `seed` and the task's id; None: all.
    """
    tasks: dict[str, list[ScoredAnswer]] = {}
    for answer in distinct(answers):
        tasks.setdefault(answer.task_id, []).append(answer)
    chosen = []
    for task_id in sorted(tasks):
        both = combinations(tasks[task_id], 2)
        task_pairs = [_pair(one, other) for one, other in both if one.reward != other.reward]
        if per_task is not None and len(task_pairs) > per_task:
            task_pairs = random.Random(f"{seed} {task_id}").sample(task_pairs, per_task)
        chosen.extend(task_pairs)
    return chosen


def distinct(answers: Sequence[ScoredAnswer]) -> list[ScoredAnswer]:
    """Each answer of a task once, apart from surrounding space, sorted by task ids and texts."""
    first: dict[tuple[str, str], ScoredAnswer] = {}
    for answer in answers:
        first.setdefault((answer.task_id, answer.completion.strip()), answer)
    return [first[key] for key in sorted(first)]


def _pair(one: ScoredAnswer, other: ScoredAnswer) -> Preference:
    better, worse = (one, other) if one.reward > other.reward else (other, one)
    texts = better.completion.strip(), worse.completion.strip()
    return Preference(better.task_id, better.prompt, *texts, better.reward - worse.reward)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of scores with executed rewards."""

    pair_accuracy: float | None
    """Share of pairs (two answers to one task with different rewards) that the scores order correctly; a tie counts
    1/2. None: there is no pair."""
    pairs: int
    auc: float | None
    """Probability that a verified answer scores above an unverified one, over all tasks; 0.5 is chance. None: all
    answers are of one kind."""
    answers: int
    """Distinct ones."""
    verified: int
    tasks: int


def agreement(answers: Sequence[ScoredAnswer], scores: Sequence[float]) -> Agreement:
    """Compare scores with executed rewards. Answers must be distinct: repeats would count easy ones several times."""
    by_text = {(a.task_id, a.completion.strip()): score for a, score in zip(answers, scores, strict=True)}
    every = pairs(answers, per_task=None)
    gaps = [by_text[pair.task_id, pair.chosen] - by_text[pair.task_id, pair.rejected] for pair in every]
    right = sum(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps)
    good = [score for answer, score in zip(answers, scores, strict=True) if answer.verified]
    bad = [score for answer, score in zip(answers, scores, strict=True) if not answer.verified]
    # AUC = U / (n1 n2), Mann and Whitney 1947
    auc = float(mannwhitneyu(good, bad).statistic) / (len(good) * len(bad)) if good and bad else None
    return Agreement(
        pair_accuracy=right / len(every) if every else None,
        pairs=len(every),
        auc=auc,
        answers=len(answers),
        verified=len(good),
        tasks=len({answer.task_id for answer in answers}),
    )


def split_by_task(
    answers: Sequence[ScoredAnswer], test_share: float, seed: int
) -> tuple[list[ScoredAnswer], list[ScoredAnswer]]:
    """Training answers and test answers, of different tasks (at least one task in each, if there are two)."""
    tasks = sorted({answer.task_id for answer in answers})
    random.Random(seed).shuffle(tasks)
    count = min(max(1, round(test_share * len(tasks))), len(tasks) - 1)
    tested = set(tasks[:count])
    return [a for a in answers if a.task_id not in tested], [a for a in answers if a.task_id in tested]
