"""The record of an agent's episode: what it did, what it saw, and what that did to the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from regrade.datasets.patches import Patch


class EpisodeEnd(StrEnum):
    """Why an episode ended. In every case the agent's tree at the end is its answer."""

    SUBMITTED = "submitted"
    TURNS = "out of turns"
    TOKENS = "out of tokens"
    SECONDS = "out of time"
    REPEATS = "repeats itself"
    """The tools refused an equal action on an equal tree too often."""
    ABANDONED = "abandoned"
    """The agent stopped without an action."""
    UNKNOWN = "unknown"
    """Another program's record does not say it."""


@dataclass(frozen=True)
class SeenTests:
    """The result of one `run_tests`, as the agent saw it."""

    passed: int
    failed: tuple[str, ...]
    """Ids of the tests that failed, ended in an error, were skipped or are missing."""
    not_run: int
    """Tests that the change cannot reach, or that were left out after a failure."""
    message: str = ""
    """Of the first failed test."""

    @property
    def is_green(self) -> bool:
        return not self.failed


@dataclass(frozen=True)
class Step:
    """One action of an agent."""

    tool: str
    """Name of the tool; empty: no action could be read from the answer."""
    arguments: Mapping[str, Any]
    observation: str
    seconds: float
    """Wall time of the tool; NaN: unknown."""
    is_mistake: bool = False
    """Did the agent use the tool wrongly (no such file, a text found twice, an unreadable answer)?"""
    is_change: bool = False
    """Did it change the tree?"""
    patch_digest: str = ""
    """Of the patch from the base to the tree after the step."""
    tests: SeenTests | None = None
    """Of `run_tests`."""
    action: str = ""
    """The policy's own text from which the action was read, if its driver has one."""


@dataclass(frozen=True)
class Episode:
    """All steps of one attempt at a task."""

    task_id: str
    instruction: str
    """The first observation."""
    steps: tuple[Step, ...]
    patch: Patch
    """From the base to the tree at the end."""
    end: EpisodeEnd
    tokens: int = 0
    """That the policy generated, if the driver counts them."""
    patches: Mapping[str, Patch] = field(default_factory=dict)
    """Digest -> each patch that was the state of the tree after a step."""

    @property
    def has_trees(self) -> bool:
        """Does it say what the tree was after each step? The records of other programs don't."""
        return not self.steps or any(step.patch_digest for step in self.steps)

    @property
    def test_runs(self) -> int:
        return sum(step.tests is not None for step in self.steps)

    @property
    def tested_before_the_end(self) -> bool:
        """Did it run tests on the tree that it hands in?"""
        return any(step.tests is not None and step.patch_digest == self.patch.digest for step in self.steps)

    @property
    def taken_back(self) -> int:
        """Changes that it undid after a test run that was not green."""
        count, was_red = 0, False
        for step in self.steps:
            if step.tests is not None:
                was_red = not step.tests.is_green
            elif step.is_change:
                count += was_red and step.tool == "undo"
                was_red = was_red and step.tool == "undo"
        return count
