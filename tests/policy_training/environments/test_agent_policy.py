"""A language model as an agent, with real test runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Rollout, Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_policy import FORMAT_FILE, AgentFormat, AgentPolicy
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import LanguageModel

SWEEP = [Sampling(0.0, 1), Sampling(1.0, 12)]


def in_order(rollouts: list[Rollout]) -> list[Rollout]:
    """Without what differs by nature: the wall time, and the episode's record."""
    bare = [replace(rollout, seconds=0.0, episode=None) for rollout in rollouts]
    return sorted(bare, key=lambda each: (each.task_id, each.temperature, each.sample))


def test_an_agent_with_one_turn_gives_the_rollouts_of_the_policy_that_answers_once(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer
) -> None:
    once = list(ModelPolicy(undecided, "policy").propose(tasks, SWEEP, seed=1))
    agent = AgentPolicy(undecided, scorer, "policy", rows=9)
    sampled = list(agent.sample(tasks, SWEEP, seed=1))
    assert in_order([each.rollout for each in sampled]) == in_order(once)
    assert len({rollout.patch.digest for rollout in once}) > 4
    for rollout, tokens in sampled:
        assert undecided.decode(list(tokens.tokens)) == rollout.completion
        assert list(tokens.prompt) == undecided.encode(rollout.prompt)
        assert all(tokens.is_action)
        assert rollout.episode is not None
        assert rollout.episode.patch == rollout.patch
        assert (len(rollout.episode.steps), rollout.episode.end) == (1, EpisodeEnd.TURNS)


def test_a_model_of_random_weights_ends_by_its_limits(
    language_model: LanguageModel, tasks: list[Task], scorer: Scorer
) -> None:
    done: list[tuple[int, int]] = []
    limits = EpisodeLimits(turns=3, tokens=50)
    policy = AgentPolicy(
        language_model, scorer, "tiny", AgentFormat(limits, 30, 200), progress=lambda *counts: done.append(counts)
    )
    sampled = list(policy.sample(tasks, SWEEP, seed=0))
    assert len(sampled) == 2 * 13
    assert done == [(1, 2), (2, 2)]
    ends = set()
    for rollout, tokens in sampled:
        episode = rollout.episode
        assert episode is not None
        ends.add(episode.end)
        assert rollout.tokens == episode.tokens == sum(tokens.is_action)
        assert len(tokens.tokens) <= 200
        assert len(tokens.log_probs) == len(tokens.tokens)
    assert EpisodeEnd.TOKENS in ends <= {EpisodeEnd.TOKENS, EpisodeEnd.TURNS}
    assert policy.times.replies == sum(len(each.rollout.episode.steps) for each in sampled if each.rollout.episode)
    assert policy.times.action_tokens == sum(rollout.tokens for rollout, _ in sampled)


def test_a_checkpoint_keeps_its_format(language_model: LanguageModel, tmp_path: Path) -> None:
    format = AgentFormat(EpisodeLimits(turns=6, test_runs=2, seconds=50.0), max_action_tokens=30, max_tokens=300)
    folder = language_model.save(tmp_path / "agent", format.files())
    assert AgentFormat.of_checkpoint(folder) == format
    assert AgentFormat.of_checkpoint(language_model.save(folder)) == AgentFormat()
    (folder / FORMAT_FILE).write_text('{"limits": {"turns": 0}}')
    with pytest.raises(UserError, match="is no format of an agent"):
        AgentFormat.of_checkpoint(folder)
    with pytest.raises(UserError, match="max_tokens 20"):
        AgentFormat(max_tokens=20)
