"""Costs and shaping of steps: shaping moves reward in time, and changes neither a policy's rank nor its total."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest

from regrade.datasets.episodes import Episode
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_tools import EpisodeLimits, RepositoryEnvironment
from regrade.policy_training.environments.compact_episode import CompactEpisode
from regrade.policy_training.environments.step_rewards import EpisodeRewards, StepCosts, StepRewards, potential


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("lengths", [[1, 1, 1, 1], [3, 1, 4, 2]])
def test_shaping_adds_up_to_less_phi_of_the_start(gamma: float, lengths: list[int]) -> None:
    """Discounted per token, and whatever happens in between."""
    phi = [0.7, -0.2, 0.4, 1.0, 0.3]
    paid = EpisodeRewards((0.0,) * 4, tuple(phi)).of_tokens(lengths, gamma)
    assert [len(tokens) for tokens in paid] == lengths
    flat = [reward for tokens in paid for reward in tokens]
    assert sum(gamma**place * reward for place, reward in enumerate(flat)) == pytest.approx(-phi[0])
    if lengths == [1, 1, 1, 1]:
        after = [*phi[1:4], 0.0]  # that of the end
        assert flat == pytest.approx([gamma * there - here for here, there in zip(phi, after, strict=False)])


def test_an_action_cut_off_before_its_step_is_paid_what_is_left_of_phi() -> None:
    paid = EpisodeRewards((-0.1,), (0.5, 0.8)).of_tokens([2, 3])
    assert [reward for tokens in paid for reward in tokens] == pytest.approx([0, -0.1 + 0.8 - 0.5, 0, 0, -0.8])


def test_shaping_changes_no_policys_rank() -> None:
    """All 243 policies of a random process of 5 states, 3 actions and random ends, valued exactly.

    From every state, a policy's value with shaping is its value without, less Phi of the state: the same for all.
    """
    draw = np.random.default_rng(0)
    states, actions, gamma = 5, 3, 0.95
    moves = draw.dirichlet(np.ones(states + 1), (states, actions))  # the last state is the end
    rewards = draw.normal(size=(states, actions, states + 1))
    phi = np.append(draw.normal(size=states), 0.0)
    shaped = rewards + gamma * phi[None, None, :] - phi[:-1, None, None]

    def value(policy: Sequence[int], pays: np.ndarray) -> np.ndarray:
        there = moves[range(states), policy]
        expected = (there * pays[range(states), policy]).sum(1)
        return np.linalg.solve(np.eye(states) - gamma * there[:, :-1], expected)

    policies = list(itertools.product(range(actions), repeat=states))
    plain = np.array([value(policy, rewards) for policy in policies])
    moved = np.array([value(policy, shaped) for policy in policies])
    np.testing.assert_allclose(moved, plain - phi[:-1], atol=1e-9)
    assert (moved.argsort(0) == plain.argsort(0)).all()
    costs = plain - draw.uniform(0, 3, size=(len(policies), 1))  # costs do change it
    assert (costs.argsort(0) != plain.argsort(0)).any()


def test_the_potential_is_fixed_less_broken(tasks: list[Task]) -> None:
    (task, *_) = tasks
    (failing,) = task.fail_to_pass
    assert potential(task, task.fail_to_pass) == 0
    assert potential(task, ()) == 1
    assert potential(task, [failing, task.pass_to_pass[0]]) == pytest.approx(-1 / 3)
    assert potential(task, task.pass_to_pass) == 0
    assert potential(task, [failing], tests=task.pass_to_pass) == 0


ACTIONS = [["2 return 0", "test", "undo", "4 return items[1]", "test", "submit"], ["nonsense", "4 return items[1]"]]


@pytest.fixture(scope="module")
def episodes(tasks: list[Task], scorer: Scorer) -> list[Episode]:
    """A wrong edit that is seen and taken back, then the right one; and an unreadable answer before the right edit."""
    environment = RepositoryEnvironment({task.id: task for task in tasks}, scorer, EpisodeLimits(turns=6))
    found = []
    for lines in ACTIONS:
        episode = CompactEpisode(environment, "second")
        for line in lines:
            episode.act(line)
        found.append(episode.episode())
    return found


def test_costs_are_those_of_turns_test_runs_and_unreadable_answers(episodes: list[Episode]) -> None:
    costs = StepCosts(turn=0.01, test_run=0.1, unreadable=0.5)
    assert costs.of(episodes[0]) == pytest.approx((-0.01, -0.11, -0.01, -0.01, -0.11, -0.01))
    assert costs.of(episodes[1]) == pytest.approx((-0.51, -0.01))
    assert not any(StepCosts().of(episodes[0]))


def test_phi_is_what_was_seen_or_what_each_tree_does(
    episodes: list[Episode], tasks: list[Task], scorer: Scorer
) -> None:
    known = {task.id: task for task in tasks}

    def phi(shaping: str) -> list[tuple[float, ...]]:
        rewards = StepRewards(shaping=shaping, weight=1.0).of(episodes, known, scorer)  # type: ignore[arg-type]
        return [each.potentials for each in rewards]

    # `return 0` in the place of the condition's line is no syntax; every test fails
    wrong, fixed = -1.0, 1.0
    assert phi("measured") == [(0, wrong, wrong, 0, fixed, fixed, fixed), (0, 0, fixed)]
    assert phi("seen") == [(0, 0, wrong, wrong, wrong, fixed, fixed), (0, 0, 0)]
    assert phi("none") == [(), ()]


def test_values_out_of_range_are_refused() -> None:
    for value in (-0.1, float("nan"), float("inf"), True, "1"):
        name = random.Random(str(value)).choice(["turn", "test_run", "unreadable"])
        with pytest.raises(UserError, match=f"StepCosts: {name} is"):
            StepCosts(**{name: value})  # type: ignore[arg-type]
        with pytest.raises(UserError, match="weight is"):
            StepRewards(weight=value)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="none, seen or measured"):
        StepRewards(shaping="guessed")  # type: ignore[arg-type]
