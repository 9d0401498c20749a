"""NeMo Gym's responses, for its own resources server (`adapters/nemo_gym.py`) and for `regrade serve`. It needs no
package of NeMo Gym.

A verify response must have a number as `reward`. An answer without a value has 0 there and `mask_sample: true`, so that
the means of `/aggregate_metrics` leave it out, as those of NeMo Gym 0.7 do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

VERIFIER_ERROR = "verifier_error"
"""Of NeMo Gym's vocabulary of failures: the verifier could not measure the answer."""
MASKED = "mask_sample"
TASK_INDEX = "_ng_task_index"
ROLLOUT_INDEX = "_ng_rollout_index"
LARGEST = 1e300
"""A number beyond it, or no number at all (NaN), enters no metric."""
STATISTICS = ("mean", "max", "min", "median", "std")


def verify_fields(value: float | None, components: Mapping[str, float], reason: str) -> dict[str, Any]:
    """The fields of a verify response, beside those of its request.

    Args:
        value: None if the answer could not be scored.
        components: also at the top, as NeMo Gym averages numbers only there.
        reason: why there is no value.
    """
    if value is None:
        failure = {"failure_kind": VERIFIER_ERROR, "failure_reason": reason}
        return {"reward": 0.0, MASKED: True, **failure, "reward_components": {}}
    valid = {"reward": value, MASKED: False, "failure_kind": None, "failure_reason": None}
    return {**components, **valid, "reward_components": dict(components)}


def measured(responses: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The verify responses whose reward is a measurement, without the flag, which is none."""
    return [
        {name: value for name, value in each.items() if name != MASKED} for each in responses if not each.get(MASKED)
    ]


def coverage(responses: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many of the responses and tasks were measured, under NeMo Gym's names; empty if all were."""
    rows = measured(responses)
    if len(rows) == len(responses):
        return {}
    tasks, measured_tasks = ({each.get(TASK_INDEX, 0) for each in some} for some in (responses, rows))
    return {
        "coverage/measured_rollouts": len(rows),
        "coverage/masked_rollouts": len(responses) - len(rows),
        "coverage/measured_tasks": len(measured_tasks),
        "coverage/fully_masked_tasks": len(tasks - measured_tasks),
    }


def aggregate_metrics(responses: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body of `/aggregate_metrics`: `STATISTICS` of each number, for all rollouts and for those of each task.

    The standard deviation has n - 1 in its denominator, and is 0 for a single rollout.
    """
    if not responses:
        return {"group_level_metrics": [], "agent_metrics": {}, "key_metrics": {}}
    rows = measured(responses)
    frame = pd.DataFrame.from_records([_numbers(each) for each in rows], index=range(len(rows)))
    tasks = pd.Series([each.get(TASK_INDEX, 0) for each in rows], dtype=object)
    groups = []
    for task in sorted(set(tasks)):
        members = frame[(tasks == task).to_numpy()]
        groups.append({TASK_INDEX: task, **_statistics(members), "num_rollouts": len(members)})
    agent = {**_statistics(frame), **coverage(responses)}
    means = {name: value for name, value in agent.items() if name.startswith(("mean/", "coverage/"))}
    return {"group_level_metrics": groups, "agent_metrics": agent, "key_metrics": means}


def _numbers(response: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a response and of its model's usage, by name. A name with `_` in front is NeMo Gym's own."""
    model = response.get("response")
    usage = model.get("usage") if isinstance(model, Mapping) else None
    both = {**response, **(usage if isinstance(usage, Mapping) else {})}
    return {name: float(value) for name, value in both.items() if not name.startswith("_") and _is_number(value)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and -LARGEST < value < LARGEST


def _statistics(frame: pd.DataFrame) -> dict[str, float]:
    if frame.empty:
        return {}
    values = frame.agg(list(STATISTICS))
    if len(frame) == 1:
        values.loc["std"] = 0.0
    return {
        f"{statistic}/{name}": float(value)
        for statistic, row in values.iterrows()
        for name, value in row.items()
        if pd.notna(value)
    }
