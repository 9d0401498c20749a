"""Traces of an agent's own fixes: what it found by trying once becomes a lesson in working over several turns.

Attempts of one turn cost a fraction of episodes, so many can be tried. Those that the full suite verified stand for the
references of a scripted expert, and those that failed for the edits that it tests and takes back
(`environments/demonstrations.py`): every trace is executed. No reference is read.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.environments.attempts import Attempt
from regrade.policy_training.environments.demonstrations import (
    Demonstration,
    DemonstrationSettings,
    Demonstrator,
    transcript_of,
)
from regrade.policy_training.policies.transcripts import Transcript

logger = logging.getLogger(__name__)
SETTINGS = DemonstrationSettings(look=0.0)
"""Of each fix: straight, after a wrong edit that was tested and taken back, and after a refused edit."""


@dataclass(frozen=True)
class FixTraces:
    """Traces made of an agent's own fixes."""

    traces: Sequence[Transcript]
    left_out: Mapping[str, Sequence[str]]
    """Task id of each fix -> why each of its traces that could not be made was left out; empty: all were made."""
    untraced: Sequence[str]
    """Task ids of the fixes of which no trace at all could be made."""

    def figures(self) -> dict[str, float]:
        """Numbers for the log: tasks with a verified fix, and what became of the traces of these fixes."""
        return {
            "traces/fixes": len(self.left_out),
            "traces/fixes_without_trace": len(self.untraced),
            "traces/made": len(self.traces),
            "traces/left_out": sum(map(len, self.left_out.values())),
        }


def traces_of_fixes(
    attempts: Sequence[Attempt],
    tasks: Sequence[Task],
    scorer: Scorer,
    limits: EpisodeLimits,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> FixTraces:
    """Executed traces that lead to the verified fixes, for each task to that of the highest training value.

    Of fixes of equal value, the most frequent one is taken. Wrong edits are the task's failed attempts first, then
    mutations.

    Args:
        attempts: of one turn, at `tasks`.
        limits: of the agent that will learn; no trace is longer.
    """
    fixes, failed = _best_fixes(attempts), _failed(attempts)
    solved = [replace(task, reference=fixes[task.id]) for task in tasks if task.id in fixes]
    left_out: dict[str, list[str]] = {task.id: [] for task in solved}
    traces: list[Transcript] = []
    traced: set[str] = set()
    if solved:
        expert = Demonstrator(solved, scorer, limits, SETTINGS, failed=failed, seed=seed)
        total = len(expert.wanted())
        for done, made in enumerate(expert.make(), 1):
            if isinstance(made, Demonstration):
                traced.add(made.task_id)
                traces += map(transcript_of, made.rows)
            else:
                left_out[made.task_id].append(made.why)
                logger.info("no trace %d of the fix of task %s: %s", made.trace, made.task_id, made.why)
            if progress is not None:
                progress(done, total)
    return FixTraces(traces, left_out, [name for name in left_out if name not in traced])


def _best_fixes(attempts: Sequence[Attempt]) -> dict[str, Patch]:
    verified = [attempt for attempt in attempts if attempt.verified]
    times = Counter((attempt.rollout.task_id, attempt.rollout.patch) for attempt in verified)

    def rank(attempt: Attempt) -> tuple[float, int, str]:
        name, patch = attempt.rollout.task_id, attempt.rollout.patch
        return attempt.reward or 0.0, times[name, patch], patch.text

    return {attempt.rollout.task_id: attempt.rollout.patch for attempt in sorted(verified, key=rank)}  # the last wins


def _failed(attempts: Sequence[Attempt]) -> dict[str, list[Patch]]:
    """Those that change something, once each."""
    failed: dict[str, dict[Patch, None]] = {}
    for attempt in attempts:
        if attempt.run is not None and not attempt.verified and not attempt.is_empty:
            failed.setdefault(attempt.rollout.task_id, {})[attempt.rollout.patch] = None
    return {name: list(patches) for name, patches in failed.items()}
