"""One trajectory of another program, and the parts that its formats share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from regrade.datasets.episodes import Episode, EpisodeEnd, Step
from regrade.datasets.patches import Patch, PatchError

DEEPEST = 8
"""Levels of parts in a message's content."""


@dataclass(frozen=True, kw_only=True)
class ForeignTrajectory:
    """The steps of one attempt at one instance. What the tree was after each step, other programs do not say."""

    instance: str
    episode: Episode
    source: str
    """Name of the format."""
    model: str = ""
    sample: int | None = None
    is_patch_known: bool = True
    """Does the record say what the patch at the end is? An empty one that it says is an attempt without changes."""


def foreign_episode(
    instance: str,
    instruction: str,
    steps: Iterable[Step],
    *,
    submission: object = None,
    end: EpisodeEnd = EpisodeEnd.UNKNOWN,
    tokens: float = 0,
) -> Episode:
    """The episode of another program's record.

    Args:
        submission: the patch at the end, if it is a text.
    """
    try:
        patch = Patch(submission) if isinstance(submission, str) else Patch("")
    except PatchError:
        patch = Patch("")
    return Episode(
        task_id=instance,
        instruction=instruction,
        steps=tuple(steps),
        patch=patch,
        end=end,
        tokens=int(tokens) if math.isfinite(tokens) else 0,
    )


def foreign_step(tool: str, arguments: Mapping[str, Any], action: str = "") -> Step:
    """A step whose observation is not known yet."""
    return Step(tool=tool, arguments=dict(arguments), observation="", seconds=math.nan, action=action)


def with_observation(step: Step, text: str, seconds: float = math.nan) -> Step:
    """The step with what it showed; a second observation is added to the first."""
    whole = f"{step.observation}\n{text}" if step.observation else text
    return replace(step, observation=whole, seconds=seconds if math.isnan(step.seconds) else step.seconds)


def text_of(content: object, depth: int = 0) -> str:
    """A message's content, or the texts of its parts."""
    if isinstance(content, str):
        return content
    if depth < DEEPEST and isinstance(content, dict):
        return text_of(content.get("text") or content.get("content") or content.get("output") or "", depth + 1)
    if depth < DEEPEST and isinstance(content, list):
        return "\n".join(filter(None, (text_of(part, depth + 1) for part in content)))
    return ""


def arguments_of(value: object) -> dict[str, Any]:
    """The arguments of a tool call: an object, or its JSON text."""
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return {"arguments": value}
        return parsed if isinstance(parsed, dict) else {"arguments": value}
    return {str(name): each for name, each in value.items()} if isinstance(value, dict) else {}


def seconds_between(first: object, second: object) -> float:
    """From one time stamp to another, each a number of seconds or ISO 8601; NaN if either is none."""
    begin, end = _moment(first), _moment(second)
    return end - begin if end >= begin else math.nan


def _moment(stamp: object) -> float:
    if isinstance(stamp, bool):
        return math.nan
    if isinstance(stamp, int | float):
        return float(stamp) if abs(stamp) < 1e15 else math.nan
    if isinstance(stamp, str):
        try:
            return datetime.fromisoformat(stamp).timestamp()
        except (ValueError, OverflowError):
            return math.nan
    return math.nan


def count_of(value: object) -> float:
    """A number of tokens; 0 for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e15 else 0.0  # type: ignore[operator,arg-type]


def mapping(value: object) -> Mapping[str, Any]:
    """An object; empty for anything else."""
    return value if isinstance(value, dict) else {}


def objects(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list; empty for anything else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
