"""Harbor's job folders: `JOB/TRIAL/result.json`, one trial an attempt at a task.

A verifier's reward of 1 is a fix; it does not tell apart tests that the task must fix from those it must not break, so
breakage is unmeasured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regrade.datasets.graded.documents import Document
from regrade.datasets.graded.records import Depth, Findings, GradedResult

NAME = "harbor"
TRIAL = frozenset({"task_name", "trial_name", "verifier_result"})
JOB = frozenset({"n_total_trials", "stats"})
CONFIGURATION = frozenset({"trial_name", "task", "agent"})


def results(document: Document, findings: Findings) -> Iterator[GradedResult] | None:
    """The result of a trial, or of a trial without one; None if the document is of no job."""
    value = document.value if document.kind == "json" else None
    if not isinstance(value, dict):
        return None
    if value.keys() >= TRIAL:
        if all(isinstance(value[key], str) and value[key] for key in ("task_name", "trial_name")):
            return iter([_trial(value, document.path, findings)])
        findings.add("trials without the name of their task", str(document.path))
        return iter(())
    if value.keys() >= JOB:
        return iter(_lost_trials(value, document.path, findings))
    if value.keys() >= CONFIGURATION:
        has_result = (document.path.parent / "result.json").is_file()
        return iter(() if has_result else [_unfinished(value, document.path)])
    return None


def _trial(value: Mapping[str, Any], path: Path, findings: Findings) -> GradedResult:
    agent, config, exception = (_mapping(value.get(key)) for key in ("agent_info", "config", "exception_info"))
    rewards = _mapping(_mapping(value.get("verifier_result")).get("rewards"))
    reward = _reward(rewards, path, findings)
    failure = str(exception.get("exception_type") or "")
    if reward is not None and failure:
        findings.add(f"trials that ended with {failure} and were verified: their reward counts", path.parent.name)
    return GradedResult(
        instance=value["task_name"],
        place=path.parent.parent,
        depth=Depth.TESTS,
        source=NAME,
        policy="",
        attempt=value["trial_name"],
        model=str(
            _mapping(agent.get("model_info")).get("name") or _mapping(config.get("agent")).get("model_name") or ""
        ),
        agent=str(agent.get("name") or ""),
        repository=str(value.get("source") or ""),
        fix=None if reward is None else reward >= 1,
        timed_out="Timeout" in failure,
        why=""
        if reward is not None
        else f"the trial ended with {failure}"
        if failure
        else "the verifier has no reward",
        reward=reward,
        tokens=_number(_mapping(value.get("agent_result")).get("n_output_tokens")),
    )


def _reward(rewards: Mapping[str, Any], path: Path, findings: Findings) -> float | None:
    value = rewards.get("reward", next(iter(rewards.values())) if len(rewards) == 1 else None)
    reward = _number(value)
    if rewards and reward is None:
        findings.add("trials with several rewards, or one that is no number", path.parent.name)
    if reward is not None and 0 < reward < 1:
        findings.add("rewards between 0 and 1, which count as no fix", path.parent.name)
    return reward


def _unfinished(value: Mapping[str, Any], path: Path) -> GradedResult:
    task, agent = _mapping(value["task"]), _mapping(value["agent"])
    return GradedResult(
        instance=str(task.get("name") or Path(str(task.get("path") or path.parent.name)).name),
        place=path.parent.parent,
        depth=Depth.TESTS,
        source=NAME,
        attempt=str(value["trial_name"]),
        model=str(agent.get("model_name") or ""),
        agent=str(agent.get("name") or ""),
        repository=str(task.get("source") or ""),
        why="the trial has no result",
    )


def _lost_trials(value: Mapping[str, Any], path: Path, findings: Findings) -> tuple[GradedResult, ...]:
    expected, found = value.get("n_total_trials"), len([*path.parent.glob("*/result.json")])
    if isinstance(expected, int) and found < expected:
        findings.add("jobs with fewer trials than they count", f"{path.parent}: {found} of {expected}")
    return ()


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]
