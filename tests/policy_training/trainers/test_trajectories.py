"""Training on whole trajectories: observations are read and not learned, and steps are paid where they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_tools import EpisodeLimits, RepositoryEnvironment
from regrade.policy_training.environments.compact_episode import CompactEpisode
from regrade.policy_training.environments.step_rewards import EpisodeRewards, StepCosts, StepRewards
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.sampling import stream
from regrade.policy_training.policies.transcripts import TokenizedEpisode, framed
from regrade.policy_training.trainers.callbacks import Budget, common_arguments
from regrade.policy_training.trainers.online import SharedPromptGRPOTrainer, SharedPromptRLOOTrainer, train_online
from regrade.policy_training.trainers.ppo import PPOConfig, PPOTrainer, train_ppo
from regrade.policy_training.trainers.settings import OnlineSettings, PPOSettings
from regrade.policy_training.trainers.trajectories import Play, Trajectories, Trajectory, action_spans

END = 1


def written(*parts: list[int]) -> TokenizedEpisode:
    """An episode of actions and observations in turn, over the prompt 9 10 11."""
    tokens = [token for part in parts for token in part]
    is_action = [number % 2 == 0 for number, part in enumerate(parts) for _ in part]
    return TokenizedEpisode((9, 10, 11), tuple(tokens), tuple(is_action))


EPISODES = [
    written([20, 21, END], [40, 41, 42], [22, END]),
    written([20, 21, END], [40, 41, 42], [23, 24, END], [43], [25, END]),
    written([26, END]),
    written([20, END], [44, 45], [END]),
]


def with_log_probs(model: Any, episode: TokenizedEpisode) -> TokenizedEpisode:
    """As the sampler returns it."""
    ids = torch.tensor([[*episode.prompt, *episode.tokens]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(episode.prompt) - 1 : -1]
    found = logits.log_softmax(-1).gather(1, torch.tensor(episode.tokens)[:, None])[:, 0]
    log_probs = [float(each) if own else 0.0 for each, own in zip(found, episode.is_action, strict=True)]
    return TokenizedEpisode(episode.prompt, episode.tokens, episode.is_action, tuple(log_probs))


def recorded(trainer: Any, task_ids: Sequence[str], _seed: int) -> tuple[list[Trajectory], float]:
    """Plays `EPISODES`."""
    assert task_ids == ["a"] * 4
    model = trainer.accelerator.unwrap_model(trainer.model)
    rollout = Rollout(task_id="a", policy="", temperature=1.0, sample=0, seed=0, patch=Patch(""))
    return [Trajectory(with_log_probs(model, episode), rollout) for episode in EPISODES], 0.0


def trainer_of(
    language_model: LanguageModel, out: Path, kind: type, config: type, rewards: Sequence[float | None], **more: Any
) -> Any:
    trajectories = Trajectories(recorded, more.pop("credit", "trajectory"))
    steps = more.pop("steps", None)

    def pay(completions: list[str], **_: Any) -> list[float | None]:
        assert len(completions) == 4
        if steps is not None:
            trajectories.rewards = steps
        return list(rewards)

    arguments = {
        **common_arguments(out, seed=0, budget=Budget(steps=2), learning_rate=1e-3),
        "per_device_train_batch_size": 4, "num_generations": 4, "remove_unused_columns": False, "max_completion_length": 9, "beta": 0.0,
    }  # fmt: skip
    trainer = kind(
        model=language_model.model, reward_funcs=pay, args=config(**(arguments | more)),
        train_dataset=Dataset.from_list([{"prompt": "a", "task_id": "a"}]), trajectories=trajectories,
        processing_class=language_model.tokenizer,
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1  # the training loop sets it
    trainer.model.train()
    return trainer


ROWS = [{"prompt": "a", "task_id": "a"}] * 4


def separate(trainer: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """TRL's own log-probabilities of every token, row by row."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width = batch["completion_ids"].shape[1]
    own = GRPOTrainer._get_per_token_logps_and_entropies
    found: torch.Tensor = own(trainer, trainer.model, ids, mask, width, compute_entropy=True)[0]
    return found


def test_a_batch_is_the_recorded_tokens_and_masks_observations(language_model: LanguageModel, tmp_path: Path) -> None:
    kind = {"loss_type": "dapo", "scale_rewards": "none", "num_iterations": 2}
    trainer = trainer_of(language_model, tmp_path, SharedPromptGRPOTrainer, GRPOConfig, [0.0, 1.0, 1.0, 0.0], **kind)
    batch = trainer._generate_and_score_completions(ROWS)
    for row, episode in enumerate(EPISODES):
        length = len(episode.tokens)
        assert batch["completion_ids"][row, :length].tolist() == list(episode.tokens)
        assert batch["tool_mask"][row, :length].tolist() == [int(own) for own in episode.is_action]
    # the normaliser of the loss, and TRL's lengths, count actions alone
    assert int(batch["num_items_in_batch"]) == sum(sum(episode.is_action) for episode in EPISODES)
    assert trainer._metrics["train"]["completions/max_length"] == [8.0]
    # the sampler's log-probabilities are those of the forward pass, which no longer runs
    mask = (batch["completion_mask"] * batch["tool_mask"]).bool()
    expected = separate(trainer, batch)
    torch.testing.assert_close(batch["old_per_token_logps"][mask], expected[mask], atol=1e-5, rtol=1e-4)
    assert batch["advantages"].tolist() == [-0.5, 0.5, 0.5, -0.5]


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_the_loss_is_that_of_separate_rows_with_observations_masked(
    language_model: LanguageModel, tmp_path: Path, algorithm: str
) -> None:
    """GRPO: TRL's own loss over unpacked rows. RLOO: the sum over actions, written out."""
    kind, config = (
        (SharedPromptGRPOTrainer, GRPOConfig) if algorithm == "grpo" else (SharedPromptRLOOTrainer, RLOOConfig)
    )
    trainer = trainer_of(language_model, tmp_path, kind, config, [0.0, 1.0, 0.5, -1.0])
    batch = trainer._generate_and_score_completions(ROWS)
    weights = list(trainer.model.base_model.layers.parameters())

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(loss, weights))

    ours = gradients(trainer._compute_loss(trainer.model, batch))
    if algorithm == "grpo":

        class Plain(kind):  # type: ignore[misc, valid-type]
            _get_per_token_logps_and_entropies = GRPOTrainer._get_per_token_logps_and_entropies

        trainer.__class__ = Plain
        theirs = gradients(trainer._compute_loss(trainer.model, batch))
    else:
        mask = batch["completion_mask"] * batch["tool_mask"]
        theirs = gradients(-((separate(trainer, batch) * mask).sum(1) * batch["advantages"]).mean())
        entropy = trainer._metrics["train"]["entropy"][-1]
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        logits = trainer.model(ids).logits[:, 2:-1]
        every = torch.distributions.Categorical(logits=logits).entropy()
        assert entropy == pytest.approx(float((every * mask).sum().detach() / mask.sum()), rel=1e-4)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-6, rtol=1e-3)
    assert any(bool(gradient.abs().sum() > 0) for gradient in ours)


def test_no_logits_are_computed_on_observations(language_model: LanguageModel, tmp_path: Path) -> None:
    trainer = trainer_of(language_model, tmp_path, SharedPromptGRPOTrainer, GRPOConfig, [0.0, 1.0, 2.0, 4.0])
    batch = trainer._generate_and_score_completions(ROWS)
    seen: list[int] = []
    hook = trainer.model.lm_head.register_forward_pre_hook(lambda _module, given: seen.append(len(given[0])))
    trainer._compute_loss(trainer.model, batch)
    hook.remove()
    assert sum(seen) == sum(sum(episode.is_action) for episode in EPISODES)


STEPS = [
    EpisodeRewards((-0.1, -0.2), (0.0, 0.5, 1.0)),
    EpisodeRewards((-0.1, -0.1, -0.3), (0.0, -0.5, 0.5, 1.0)),
    EpisodeRewards((-0.1,), (0.0, 0.0)),
    EpisodeRewards((-0.1, -0.1), (0.0, 1.0, 1.0)),
]


def test_ppo_pays_each_action_at_its_end_and_skips_observations(language_model: LanguageModel, tmp_path: Path) -> None:
    """The critic says 0 at first, so a return is the lambda-weighted sum of what comes, over actions' tokens alone."""
    outcomes = [1.0, 0.0, 0.0, 1.0]
    paid = [outcome + steps.total for outcome, steps in zip(outcomes, STEPS, strict=True)]
    size = {"num_generations": 1, "kl_coef": 0.0, "steps": STEPS}
    trainer = trainer_of(language_model, tmp_path, PPOTrainer, PPOConfig, paid, **size)
    batch = trainer._generate_and_score_completions(ROWS)
    for row, (episode, steps) in enumerate(zip(EPISODES, STEPS, strict=True)):
        rewards = [0.0] * len(episode.tokens)
        spans = action_spans(episode.is_action)
        for number, (_, end) in enumerate(spans):
            after = steps.potentials[number + 1] if number + 1 < len(spans) else 0.0
            rewards[end - 1] = steps.costs[number] + after - steps.potentials[number]
        rewards[-1] += outcomes[row]
        following = 0.0
        for place in reversed(range(len(episode.tokens))):
            if episode.is_action[place]:
                following = rewards[place] + 0.95 * following
                assert float(batch["returns"][row, place]) == pytest.approx(following, abs=1e-5)
            else:
                assert float(batch["returns"][row, place]) == 0
                assert float(batch["advantages"][row, place]) == 0
    kept = (batch["completion_mask"] * batch["tool_mask"]).bool()
    assert int(batch["num_items_in_batch"]) == int(kept.sum())
    loss = trainer._compute_loss(trainer.model, batch)
    assert torch.isfinite(loss)


def test_credit_by_step_compares_each_step_with_the_same_step_of_the_group(
    language_model: LanguageModel, tmp_path: Path
) -> None:
    outcomes = [1.0, 0.0, 0.0, 1.0]
    paid = [outcome + steps.total for outcome, steps in zip(outcomes, STEPS, strict=True)]
    more = {"scale_rewards": "none", "steps": STEPS, "credit": "step"}
    trainer = trainer_of(language_model, tmp_path, SharedPromptGRPOTrainer, GRPOConfig, paid, **more)
    batch = trainer._generate_and_score_completions(ROWS)
    advantages = batch["advantages"]
    # what follows each step: outcome + costs from there on - Phi before it
    to_go = [[1 - 0.3, 1 - 0.2 - 0.5], [-0.5, -0.4 + 0.5, -0.3 - 0.5], [-0.1], [1 - 0.2, 1 - 0.1 - 1]]
    for step in range(3):
        reached = [row for row in range(4) if len(to_go[row]) > step]
        mean = sum(to_go[row][step] for row in reached) / len(reached)
        for row in reached:
            start, end = action_spans(EPISODES[row].is_action)[step]
            expected = to_go[row][step] - mean
            assert advantages[row, start:end].tolist() == pytest.approx([expected] * (end - start), abs=1e-5)
    assert not advantages[(batch["completion_mask"] * batch["tool_mask"]) == 0].any()


# ---------------------------------------------------------------- real episodes


def players(language_model: LanguageModel, tasks: Sequence[Task], scorer: Scorer, turns: int) -> Play:
    """Episodes in the compact grammar, one after the other."""
    known = {task.id: task for task in tasks}
    limits = EpisodeLimits(turns=turns, test_runs=2)

    def play(trainer: Any, task_ids: Sequence[str], seed: int) -> tuple[list[Trajectory], float]:
        model = trainer.accelerator.unwrap_model(trainer.model)
        return [one(model, name, seed + number) for number, name in enumerate(task_ids)], 0.0

    def one(model: Any, name: str, seed: int) -> Trajectory:
        episode = CompactEpisode(RepositoryEnvironment(known, scorer, limits), name)
        prompt, end = language_model.encode(episode.prompt), language_model.stop_ids
        tokens: list[int] = []
        is_action: list[bool] = []
        log_probs: list[float] = []
        while True:
            ((_, (action,)),) = stream(model, [prompt + tokens], [1.0], stop_ids=end, max_tokens=16, seed=seed)
            tokens += action.tokens
            log_probs += action.log_probs
            is_action += [True] * len(action.tokens)
            shown = episode.act(language_model.decode(action.tokens))
            if shown is None:
                break
            observation = language_model.encode(framed(shown))
            tokens += observation
            log_probs += [0.0] * len(observation)
            is_action += [False] * len(observation)
        record = episode.episode()
        played = TokenizedEpisode(tuple(prompt), tuple(tokens), tuple(is_action), tuple(log_probs))
        rollout = Rollout(
            task_id=name, policy="trained", temperature=1.0, sample=0, seed=0, patch=record.patch,
            prompt=episode.prompt, completion=episode.transcript().completion, episode=record,
        )  # fmt: skip
        return Trajectory(played, rollout)

    return play


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "ppo"])
def test_agents_train_on_executed_tests(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path, algorithm: Any
) -> None:
    rows: list[dict[str, float]] = []

    def log(_step: int, _seconds: float, numbers: Mapping[str, float]) -> None:
        rows.append(dict(numbers))

    play = players(undecided, tasks, scorer, turns=2)
    costs = StepCosts(turn=0.01, test_run=0.05, unreadable=0.1)
    more: dict[str, Any] = {"out": tmp_path, "budget": Budget(steps=2), "seed": 0, "play": play, "log": log}
    if algorithm == "ppo":
        shaped = StepRewards(costs=costs, shaping="measured")
        ppo = PPOSettings(epochs=1, samples_per_prompt=6)
        train_ppo(undecided, tasks, scorer, ppo, step_rewards=shaped, **more)
    else:
        online = OnlineSettings(algorithm=algorithm, learning_rate=1e-3, prompts_per_step=2, samples_per_prompt=6)
        train_online(undecided, tasks, scorer, online, step_rewards=StepRewards(costs=costs), **more)
    assert {"turns", "test_runs", "tested", "taken_back", "mistakes", "truncated", "waiting_share"} <= rows[0].keys()
    assert rows[0]["turns"] > 1
    assert rows[0]["breakage"] > 0
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in rows if "loss" in row)
