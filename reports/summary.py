"""The machine-readable figures of a run: RUN/summary.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.comparison import Comparison
from regrade.evaluators.analysis.figures import figures
from regrade.evaluators.storage.journal import write_atomically
from regrade.reports.results import GREEDY, PolicyResult, Results, load_results

HEADLINE = (m.FIX_RATE, m.BREAKAGE_INCIDENCE, m.FIX_AND_CLEAN)


def summary(folder: Path) -> dict[str, Any]:
    """Compute the figures of a run and write them to its summary.json (replaced atomically).

    Keys: `phases` (name -> seconds), `policies` (name -> `fix_rate`, `breakage_incidence`, `fix_and_clean`, each with
    value, n, n_tasks, low, high; `no_op_rate`; `temperature`, its own best; `greedy`, the same three at temperature 0,
    or null; `metrics`, all figures of `regrade.evaluators.analysis.figures`; `tampering`, over all its attempts:
    `looked_at`, `attempts` that tamper with the evaluation, and `kinds`, each with its attempts; `temperatures`, a list
    with the same three at each temperature, and `is_best`; for a checkpoint `series` and `step`),
    `slices` (trait by which the tasks differ -> its value -> policy -> the same three, at its own best temperature),
    `series` (training -> its checkpoints by step, each with `step`, `policy`, `temperature` and the same three),
    `comparison` (pair such as `rl_vs_sft` -> `verdict`, `decision` (the answers `fixing` and `breaking`, and their
    `detail`), `scope`, `reason`, `pairs`, `missing`, `worst`, `best`, and each metric with difference, low, high, p,
    noise and verdict), `share_of_step` (execution, generation, training).

    Raises:
        UserError: the folder is no run, or no policy was evaluated.
    """
    return write_summary(load_results(folder))


def write_summary(results: Results) -> dict[str, Any]:
    """Write and return the `summary` of loaded results."""
    values = {
        "name": results.manifest.name,
        "tasks": results.n_tasks,
        "phases": {name: round(phase.seconds, 3) for name, phase in results.manifest.phases.items()},
        "policies": {policy.name: _policy(policy) for policy in results.policies},
        "slices": {
            trait: {
                value: {name: _three(rows) for name, rows in policies.items()} for value, policies in values.items()
            }
            for trait, values in results.slices.items()
        },
        "series": {name: [_checkpoint(policy) for policy in policies] for name, policies in results.series.items()},
        "comparison": {pair.key: _comparison(pair.best) for pair in results.pairs},
        "noise_floor": _comparison(results.noise_floor) if results.noise_floor is not None else None,
        "share_of_step": results.run.share_of_step(),
    }
    write_atomically(results.run.folder / "summary.json", json.dumps(values, indent=2, allow_nan=False) + "\n")
    return values


def _policy(policy: PolicyResult) -> dict[str, Any]:
    greedy = _figures(policy, GREEDY) if GREEDY in policy.temperatures else None
    return {
        "label": policy.label,
        "role": policy.role,
        "temperature": policy.temperature,
        **_figures(policy, policy.temperature),
        "greedy": greedy,
        "metrics": figures(policy.best),
        "tampering": m.tampering(policy.rows),
        "temperatures": [
            {"temperature": t, "is_best": t == policy.temperature, **_figures(policy, t)} for t in policy.temperatures
        ],
        **({"series": policy.entry.series, "step": policy.entry.step} if policy.entry.series else {}),
    }


def _checkpoint(policy: PolicyResult) -> dict[str, Any]:
    identity = {"step": policy.entry.step, "policy": policy.name, "temperature": policy.temperature}
    return {**identity, **_figures(policy, policy.temperature)}


def _three(rows: pd.DataFrame) -> dict[str, Any]:
    return {metric.name: m.estimate(rows, metric).to_json() for metric in HEADLINE}


def _figures(policy: PolicyResult, temperature: float) -> dict[str, Any]:
    estimates = policy.estimates(temperature, (*HEADLINE, m.NO_OP_RATE))
    rates = {metric.name: estimates[metric.name].to_json() for metric in HEADLINE}
    return {**rates, "no_op_rate": estimates[m.NO_OP_RATE.name].to_json()["value"]}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "baseline": comparison.baseline,
        "candidate": comparison.candidate,
        "verdict": comparison.verdict,
        "decision": comparison.decision and comparison.decision.to_json(),
        "scope": comparison.scope,
        "reason": comparison.reason,
        "margin": comparison.margin,
        "clusters": comparison.clusters,
        "mcnemar": comparison.mcnemar,
        "pairs": {name: asdict(pairs) for name, pairs in comparison.pairs.items()},
        "missing": comparison.n_missing,
        "worst": comparison.worst,
        "best": comparison.best,
        "warnings": list(comparison.warnings),
        **{name: difference.to_json() for name, difference in comparison.metrics.items()},
    }
