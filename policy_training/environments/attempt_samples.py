"""Attempts from along a training, for its page: of each generation the best and the worst at one task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from regrade.evaluators.storage.journal import append
from regrade.policy_training.environments.attempts import Attempt

LONGEST = 4000
"""Characters of a text."""


def write_samples(path: Path, step: int, attempts: Sequence[Attempt]) -> None:
    """Append the best and the worst scored attempt of the task whose attempts differ most; one if all are equal."""
    by_task: dict[str, list[tuple[float, Attempt]]] = {}
    for attempt in attempts:
        if attempt.reward is not None:
            by_task.setdefault(attempt.rollout.task_id, []).append((attempt.reward, attempt))
    if not by_task:
        return
    widest = max(by_task.values(), key=lambda scored: max(scored, key=_value)[0] - min(scored, key=_value)[0])
    best, worst = max(widest, key=_value), min(widest, key=_value)
    append(path, [_row(step, *one) for one in ((best, worst) if best[0] > worst[0] else (best,))])


def _value(scored: tuple[float, Attempt]) -> float:
    return scored[0]


def _row(step: int, reward: float, attempt: Attempt) -> dict[str, object]:
    rollout = attempt.rollout
    return {
        "step": step,
        "task_id": rollout.task_id,
        "outcome": _outcome(attempt),
        "reward": reward,
        **({} if attempt.stop is None else {"stage": attempt.stop.stage, "ground": attempt.stop.ground}),
        "text": rollout.completion[:LONGEST],
        "patch": rollout.patch.text[:LONGEST],
    }


def _outcome(attempt: Attempt) -> str:
    if attempt.tampering:
        return f"tampering ({', '.join(attempt.tampering)})"
    if not attempt.rollout.well_formed:
        return "unreadable"
    if attempt.verified:
        return "clean fix"
    if attempt.broke:
        return "breakage"
    return "no change" if attempt.is_empty else "no fix"
