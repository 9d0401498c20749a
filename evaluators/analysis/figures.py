"""All figures of one policy's rows as plain JSON, for summaries, reports and other programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis import side_metrics as side
from regrade.evaluators.analysis.agent_metrics import agent_figures, episode_ends, has_episodes
from regrade.evaluators.analysis.metrics import Rows
from regrade.evaluators.storage.json_numbers import finite_values


def figures(rows: Rows) -> dict[str, Any]:
    """All metrics of one policy at one temperature.

    Keys: the name of each metric of `metrics.METRICS` and `side_metrics.SIDE_METRICS` (an estimate: `value`, `low`,
    `high`, `n`, `n_tasks`, `clusters`, `n_clusters`, `missing`, `worst`, `best`, `at_most`); `severity_tail` (`median`,
    `ninetieth`, `catastrophes`, `pooled`); `net_value_sweep` (cost of a breakage -> estimate); `breakage_by_hops`
    (distance -> estimate), `broken_tests_by_hops` (distance -> number), `breakage_by_place`, `broken_tests_by_place`;
    `pass_at_k`, `pass_hat_k` (k -> estimate, for k up to the samples that every task has); `tokens_per_clean_fix`,
    `seconds_per_clean_fix`; and of an agent `agent` (name of each metric of `agent_metrics.AGENT_METRICS` -> estimate;
    `ends`: how episodes ended -> attempts). A number that is not finite is null.
    """
    severity = m.severity(rows)
    tail = {key: value for key, value in asdict(severity).items() if key != "mean"}
    samples = range(1, 1 + (int(rows.groupby("task").size().min()) if len(rows) else 0))
    return {
        **{metric.name: m.estimate(rows, metric).to_json() for metric in (*m.METRICS, *side.SIDE_METRICS)},
        "severity_tail": finite_values(tail),
        "net_value_sweep": {f"{cost:g}": estimate.to_json() for cost, estimate in m.net_value_sweep(rows).items()},
        "breakage_by_hops": {name: estimate.to_json() for name, estimate in side.breakage_by_hops(rows).items()},
        "broken_tests_by_hops": side.broken_tests_by_hops(rows),
        "breakage_by_place": {name: estimate.to_json() for name, estimate in side.breakage_by_place(rows).items()},
        "broken_tests_by_place": side.broken_tests_by_place(rows),
        "pass_at_k": {str(k): m.pass_at_k(rows, k).to_json() for k in samples},
        "pass_hat_k": {str(k): m.pass_hat_k(rows, k).to_json() for k in samples},
        "tokens_per_clean_fix": m.cost_estimate(rows, "tokens").to_json(),
        "seconds_per_clean_fix": m.cost_estimate(rows, "seconds").to_json(),
        **_agent(rows),
    }


def _agent(rows: Rows) -> dict[str, Any]:
    if not has_episodes(rows):
        return {}
    estimates = {name: one.to_json() for name, one in agent_figures(rows).items()}
    return {"agent": {**estimates, "ends": episode_ends(rows)}}
