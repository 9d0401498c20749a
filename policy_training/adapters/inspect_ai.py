"""Inspect: a scorer of patches.

    from regrade.policy_training.adapters.inspect_ai import regrade_scorer

    @task
    def fixes():
        return Task(dataset=..., solver=..., scorer=regrade_scorer(tasks="tasks.jsonl", reward="tests"))

The id of the task is `metadata["task_id"]` of a sample, or else the id of the sample.

Unscored: `Score.unscored`, which Inspect's metrics and reducers leave out.
"""

from __future__ import annotations

from typing import Any

from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

from regrade.policy_training.adapters.configured import configured_verdicts
from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.adapters.versions import warn_if_untested


@scorer(metrics=[mean(), stderr()])  # type: ignore[untyped-decorator]
def regrade_scorer(**settings: Any) -> Scorer:
    """The value of the patch in a model's answer, or of `state.store["patch"]` where a solver puts one.

    Args:
        settings: see `configured_verdicts`.

    Raises:
        UserError: the settings are wrong, or a sample names an unknown task.
    """
    warn_if_untested("inspect-ai")

    async def score(state: TaskState, target: Target) -> Score:
        del target
        task_id = str(state.metadata.get("task_id") or state.sample_id)
        patch = state.store.get("patch")
        answer = Answer(task_id, text=state.output.completion) if patch is None else Answer(task_id, patch=patch)
        verdict = await configured_verdicts(**settings).of_one(answer)
        shown = answer.patch if answer.patch is not None else answer.text
        if verdict.value is None:
            return Score.unscored(reason="scoring_failed", answer=shown, explanation=verdict.cause)
        metadata = {"components": dict(verdict.components), "cause": verdict.cause, "flags": list(verdict.flags)}
        reason = "invalid_response_format" if "malformed" in verdict.flags else None
        return Score(
            value=verdict.value, answer=shown, explanation=verdict.explanation, reason=reason, metadata=metadata
        )

    return score
