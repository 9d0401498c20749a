"""Rewards of single steps: what turns and test runs cost, and shaping by the state of the tests.

The outcome of an episode is paid at its end, by `TrainingReward`. Two things can be added to it, step by step.

*Costs* change what is best: with a price of test runs, an agent that is sure should not test.

*Shaping* does not (Ng, Harada and Russell 1999): a step from state s to s' is paid F = gamma Phi(s') - Phi(s), where
Phi is 0 after the end. The sum over an episode is -Phi(s0), whatever the agent does, so every policy is paid the same
more, and the order of policies stays as it is. What changes is *when* the reward comes: at the step that mended or
broke something, not at the end. So shaping helps an algorithm that looks at steps, PPO's critic or `credit="step"` of
GRPO. To one number per episode, it adds the same for all attempts at a task, which their group's mean takes away again:
there it does nothing.

Phi is the share of the FAIL_TO_PASS tests that pass, less the share of the PASS_TO_PASS tests that fail: 0 at the
start. Its tests are those that the agent last saw (`seen`; costs nothing, and pays at test runs), or the whole suite on
each distinct tree of the episode (`measured`; pays at edits, and costs an execution per distinct tree, after the end of
the episode, by the warm workers; the final tree's is that of the verdict).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from regrade.datasets.episodes import Episode
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.untestable import as_failure
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.edited_tree import ToolMistakeError
from regrade.policy_training.environments.shown_tests import ShownTests
from regrade.rewards.evidence import TestRun

Shaping = Literal["none", "seen", "measured"]


def _check_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(f"{name} is {value!r}; give a finite number of at least 0")


@dataclass(frozen=True, kw_only=True)
class StepCosts:
    """What is taken from the reward of an episode for its steps.

    Raises:
        UserError: a cost is not a finite number of at least 0.
    """

    turn: float = 0.0
    """Per action, readable or not. Default: 0."""
    test_run: float = 0.0
    """Per test run. Default: 0."""
    unreadable: float = 0.0
    """Per answer from which no action can be read. Default: 0."""
    refused: float = 0.0
    """Per action that the tools refuse, such as an edit that changes nothing, or one that was tried before; an
    unreadable answer is none. Small models repeat such actions: with this price, another try pays. Default: 0."""

    def __post_init__(self) -> None:
        for name in ("turn", "test_run", "unreadable", "refused"):
            _check_number(f"StepCosts: {name}", getattr(self, name))

    def of(self, episode: Episode) -> tuple[float, ...]:
        """The reward of each step, at most 0."""
        return tuple(
            -(
                self.turn
                + self.test_run * (step.tests is not None)
                + self.unreadable * (not step.tool)
                + self.refused * (step.is_mistake and bool(step.tool))
            )
            for step in episode.steps
        )


@dataclass(frozen=True, kw_only=True)
class StepRewards:
    """The rewards of steps beside the outcome.

    Raises:
        UserError: `shaping` is none of its values, or `weight` is not a finite number of at least 0.
    """

    costs: StepCosts = StepCosts()
    """Of single steps. Default: nothing costs anything."""
    shaping: Shaping = "none"
    """Where the state of the tests comes from: `seen` or `measured`. Default: `none`: no shaping."""
    weight: float = 0.5
    """Factor of Phi. Default: 0.5."""

    def __post_init__(self) -> None:
        if self.shaping not in ("none", "seen", "measured"):
            raise UserError(f"StepRewards: shaping is {self.shaping!r}; give none, seen or measured")
        _check_number("StepRewards: weight", self.weight)

    def of(self, episodes: Sequence[Episode], tasks: Mapping[str, Task], scorer: Scorer) -> list[EpisodeRewards]:
        """The rewards of the steps of each episode.

        Args:
            tasks: id -> task.
            scorer: executes the trees, for `measured`.
        """
        costs = [self.costs.of(episode) for episode in episodes]
        match self.shaping:
            case "seen":
                found = [_seen(episode, tasks[episode.task_id]) for episode in episodes]
            case "measured":
                found = _measured(episodes, tasks, scorer)
            case _:
                return [EpisodeRewards(each) for each in costs]
        return [
            EpisodeRewards(each, tuple(self.weight * phi for phi in potentials))
            for each, potentials in zip(costs, found, strict=True)
        ]


@dataclass(frozen=True)
class EpisodeRewards:
    """The rewards of the steps of one episode."""

    costs: tuple[float, ...] = ()
    """Of each step, at most 0."""
    potentials: tuple[float, ...] = ()
    """Phi of the state before each step, and of that after the last; empty: no shaping."""

    @property
    def total(self) -> float:
        """The sum of the costs. Shaping is not in it: its sum is the same for all attempts at a task."""
        return sum(self.costs)

    def to_go(self, step: int) -> float:
        """What is still to come, before a step, of costs and shaping; undiscounted."""
        return sum(self.costs[step:]) - self._potential(step)

    def of_tokens(self, lengths: Sequence[int], gamma: float = 1.0) -> list[list[float]]:
        """The reward of each token of each action, discounted per token: costs and F come at an action's last token.

        Within an action the state is the same, so its other tokens are paid F = gamma Phi(s) - Phi(s).

        Args:
            lengths: tokens of each action. An action after the last step was cut off: it costs nothing.
        """
        rewards = []
        for number, length in enumerate(lengths):
            before = self._potential(number)
            after = self._potential(number + 1) if number + 1 < len(lengths) else 0.0
            cost = self.costs[number] if number < len(self.costs) else 0.0
            inside = [(gamma - 1) * before] * (length - 1)
            rewards.append([*inside, cost + gamma * after - before])
        return rewards

    def _potential(self, number: int) -> float:
        return self.potentials[min(number, len(self.potentials) - 1)] if self.potentials else 0.0


def potential(task: Task, failing: Iterable[str], tests: Iterable[str] | None = None) -> float:
    """Phi, in [-1, 1]: the share of the FAIL_TO_PASS tests that pass, less that of the PASS_TO_PASS tests that fail.

    Args:
        failing: ids of the failing tests.
        tests: only these count. Default: None: all of the task.
    """
    counted = frozenset(task.tests if tests is None else tests)
    failed = frozenset(failing) & counted
    fail_to_pass, pass_to_pass = counted.intersection(task.fail_to_pass), counted.intersection(task.pass_to_pass)
    fixed = len(fail_to_pass - failed) / len(fail_to_pass) if fail_to_pass else 0.0
    broken = len(pass_to_pass & failed) / len(pass_to_pass) if pass_to_pass else 0.0
    return fixed - broken


def _seen(episode: Episode, task: Task) -> list[float]:
    """Phi before each step and after the last, by what the agent last saw of the tests that it is shown."""
    shown = ShownTests.of(task)
    failing = set(task.fail_to_pass)
    phi = [potential(task, failing, shown.ids)]
    for step in episode.steps:
        if step.tests is not None:
            if not step.tests.not_run:  # else it is not known which passed
                failing.difference_update(_chosen(shown, step.arguments.get("tests") or []))
            failing.update(step.tests.failed)
        phi.append(potential(task, failing, shown.ids))
    return phi


def _chosen(shown: ShownTests, names: Sequence[str]) -> tuple[str, ...]:
    try:
        return shown.chosen(names)
    except ToolMistakeError:  # the record of another task
        return ()


def _measured(episodes: Sequence[Episode], tasks: Mapping[str, Task], scorer: Scorer) -> list[list[float]]:
    """Phi before each step and after the last, by the whole suite on each distinct tree."""
    states = [[Patch("").digest, *(step.patch_digest for step in episode.steps)] for episode in episodes]
    patches = {
        (episode.task_id, digest): episode.patches[digest]
        for episode, digests in zip(episodes, states, strict=True)
        for digest in digests
        if digest in episode.patches and not episode.patches[digest].is_empty
    }
    jobs = [(tasks[task_id], patch) for (task_id, _), patch in patches.items()]
    evidence = scorer.gather(jobs, {TestRun}, reachable=True) if jobs else []
    known: dict[tuple[str, str], float] = {}
    for (key, (task, _)), records in zip(zip(patches, jobs, strict=True), evidence, strict=True):
        run = as_failure(task, records).records.get(TestRun)
        if isinstance(run, TestRun):
            failing = (set(task.fail_to_pass) - set(run.fixed)) | set(run.broken)
            known[key] = potential(task, failing)
    phi = []
    for episode, digests in zip(episodes, states, strict=True):
        row = [0.0]
        for digest in digests[1:]:
            unchanged = digest not in episode.patches or episode.patches[digest].is_empty
            # A tree whose tests could not be run through no fault of the policy counts as the one before it.
            row.append(0.0 if unchanged else known.get((episode.task_id, digest), row[-1]))
        phi.append(row)
    return phi
