"""The columns of rows of agents: what an episode's record says, and what its changes did to the full tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from regrade.datasets.episodes import Episode
from regrade.evaluators.storage.step_effects import StepEffect


def columns_of_episode(episode: Episode | None) -> dict[str, Any]:
    """The columns of an agent's attempt; none of a policy that answers once.

    Of an episode that another program recorded, only the number of its steps is known.
    """
    if episode is None:
        return {}
    columns: dict[str, Any] = {"turns": len(episode.steps)}
    if not episode.has_trees:
        return columns
    return columns | {
        "test_runs": episode.test_runs,
        "tested_at_end": int(episode.tested_before_the_end),
        "taken_back": episode.taken_back,
        "mistakes": sum(step.is_mistake for step in episode.steps),
        "episode_end": episode.end.value,
    }


def columns_of_steps(changes: Iterable[StepEffect]) -> dict[str, Any]:
    """The columns that need the full tests of every tree; null if a tree has no result."""
    effects = [*changes]
    if any(effect.unknown for effect in effects):
        return {"breaking_edits": None, "breaking_edits_kept": None}
    breaking = [effect for effect in effects if effect.is_breaking]
    return {"breaking_edits": len(breaking), "breaking_edits_kept": sum(effect.is_kept for effect in breaking)}
