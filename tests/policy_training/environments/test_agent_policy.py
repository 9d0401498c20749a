"""A language model as an agent, with real test runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Rollout, Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.sweeps import Entrant, Judge, Sweep, enter
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.policy_training import load_policy
from regrade.policy_training.environments.agent_policy import (
    FORMAT_FILE,
    AgentFormat,
    AgentPolicy,
    AgentSample,
    dialogues_of,
)
from regrade.policy_training.environments.agent_tools import EpisodeLimits, RepositoryEnvironment
from regrade.policy_training.environments.attempts import judge
from regrade.policy_training.environments.compact_episode import CompactEpisode
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.policies.transcripts import TokenizedEpisode, tokenized
from regrade.policy_training.policies.unbound import UnboundAgent
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.executed_tests import ExecutedTests
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.policy_training.trainers.sft import train_sft
from regrade.policy_training.trainers.trajectories import TrajectoryBatch
from regrade.rewards import tests as passing
from regrade.rewards.evidence import EvidenceSet
from regrade.rewards.evidence import TestRun as RunOfTests

SWEEP = [Sampling(0.0, 1), Sampling(1.0, 12)]


def in_order(rollouts: list[Rollout]) -> list[Rollout]:
    """Without what differs by nature: the wall time, the episode's record, and the probability that only answers of one
    turn are stored with."""
    bare = [replace(rollout, seconds=0.0, episode=None, log_probability=None) for rollout in rollouts]
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
    assert (AgentFormat().max_tokens, AgentFormat(EpisodeLimits(turns=8)).max_tokens) == (100, 800)
    assert AgentFormat(max_action_tokens=120).max_tokens == 120
    with pytest.raises(UserError, match="max_tokens 20"):
        AgentFormat(max_tokens=20)


def test_an_attempt_whose_tests_the_machine_could_not_run_is_unscored(
    language_model: LanguageModel, tasks: list[Task], scorer: Scorer
) -> None:
    class FullDisk:
        def gather(self, jobs: Sequence[Any], needs: Collection[type]) -> list[EvidenceSet]:
            return [EvidenceSet({}, dict.fromkeys(needs, "the disk is full")) for _ in jobs]

    policy = AgentPolicy(language_model, FullDisk(), "agent", AgentFormat(EpisodeLimits(turns=4)))
    tested, untested = dialogues_of(policy, tasks[0], [0.0, 0.0])
    for line in ("4 return items[1]", "test", "submit"):
        tested.reply([*language_model.encode(line), *language_model.stop_ids])
        if line != "test":
            untested.reply([*language_model.encode(line), *language_model.stop_ids])
    rollouts = [dialogue.rollout("agent", 0, 0, 0.0) for dialogue in (tested, untested)]
    assert [rollout.patch for rollout in rollouts] == [tasks[0].reference] * 2
    assert "the disk is full" in rollouts[0].lost
    lost, fixed = judge(rollouts, {"second": tasks[0]}, scorer, DEFAULT_TRAINING_REWARD)
    assert (lost.reward, lost.run, lost.verified, lost.rollout) == (None, None, False, rollouts[0])
    assert (fixed.reward, fixed.verified) == (1.0, True)
    judged = ExecutedTests(tasks, scorer, DEFAULT_TRAINING_REWARD, trajectories=TrajectoryBatch(lambda *_: iter(())))
    assert judged.trajectories is not None
    for rollout in rollouts:
        judged.begin(rollout)
    judged.trajectories.latest = [AgentSample(each, TokenizedEpisode((), (), ())) for each in rollouts]
    assert judged(["", ""], ["second", "second"]) == [None, None], "the group teaches nothing"
    judged.close()


@pytest.mark.slow
def test_an_agent_tests_takes_back_and_mends_alone_or_beside_others(
    language_model: LanguageModel, tasks: list[Task], tmp_path: Path
) -> None:
    """A tiny model that has learned two executed episodes, sampled with real test runs."""
    limits = EpisodeLimits(turns=8, test_runs=3)
    with Scorer(workers=2, cache=tmp_path / "cache") as scorer:
        lessons = []
        for task in tasks:
            compact = CompactEpisode(RepositoryEnvironment({task.id: task}, scorer, limits), task.id)
            for line in ("3 return 0", "test", "undo", prompt_of(task).reference_answer(), "test", "submit"):
                compact.act(line)
            lessons.append(compact.transcript())
        settings = SFTSettings(learning_rate=1e-2, batch_size=2)
        train_sft(language_model, lessons, settings, out=tmp_path / "sft", budget=Budget(steps=150), seed=0)

        executions, found = scorer.stats.executions, []
        for rows in (1, 5, 40):
            policy = AgentPolicy(language_model, scorer, "agent", AgentFormat(limits, max_tokens=400), rows=rows)
            found.append(list(policy.sample(tasks, [Sampling(0.0, 2), Sampling(1.2, 6)], seed=0)))
        one, some, many = (in_order([sampled.rollout for sampled in each]) for each in found)
        assert one == some == many
        states = {
            (rollout.task_id, step.patch_digest)
            for rollout, _ in found[0]
            if rollout.episode
            for step in rollout.episode.steps
            if step.tests
        }
        assert scorer.stats.executions - executions <= len(states)
        greedy = [each for each in found[2] if each.rollout.temperature == 0]
        for rollout, tokens in greedy:
            episode = rollout.episode
            assert episode is not None
            assert (episode.end, episode.test_runs, episode.taken_back) == (EpisodeEnd.SUBMITTED, 2, 1)
            lesson = tokenized(
                lessons[[task.id for task in tasks].index(rollout.task_id)],
                language_model.encode,
                language_model.stop_ids[0],
            )
            assert (tokens.prompt, tokens.tokens, tokens.is_action) == (lesson.prompt, lesson.tokens, lesson.is_action)
        jobs = [(task, each.rollout.patch) for each in greedy for task in tasks if task.id == each.rollout.task_id]
        assert all(evidence.records[RunOfTests].resolved for evidence in scorer.gather(jobs, {RunOfTests}))


def test_a_checkpoint_works_as_the_agent_that_it_was_trained_as(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    """An evaluation gives a loaded agent its scorer; without a format in the folder, the policy answers once."""
    format = AgentFormat(EpisodeLimits(turns=2), max_tokens=150)
    folder = undecided.save(tmp_path / "agent", format.files())
    bare = load_policy(str(folder), device="cpu")
    assert isinstance(bare, UnboundAgent)
    with pytest.raises(UserError, match="'agent' is an agent that runs tests"):
        bare.propose(tasks, SWEEP, 0)
    bound = load_policy(str(folder), device="cpu", scorer=scorer)
    assert isinstance(bound, AgentPolicy)
    assert bound.format == format

    run = Run(tmp_path / "run")
    entrant = Entrant(name="agent", role="candidate", load=lambda _: bare)
    rows = enter(run, entrant, Sweep((1.0,), samples=3), [], tasks, Judge(scorer=scorer, reward=passing))
    assert len(rows) == 6
    rollouts = {
        (rollout.task_id, rollout.sample): rollout.patch.digest
        for rollout in bound.propose(tasks, [Sampling(1.0, 3)], seed=0)
    }
    assert {(row.task, row.sample): row.patch_digest for row in rows.itertuples()} == rollouts

    once = load_policy(str(undecided.save(folder)), device="cpu", scorer=scorer)
    assert isinstance(once, ModelPolicy)
