"""Training on whole trajectories: observations are read and not learned, and steps are paid where they end."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_policy import AgentFormat, AgentPolicy, AgentSample
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.environments.step_rewards import EpisodeRewards, StepCosts, StepRewards
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.transcripts import TokenizedEpisode
from regrade.policy_training.trainers.callbacks import Budget, common_arguments
from regrade.policy_training.trainers.generation import turnwise_play
from regrade.policy_training.trainers.online import (
    PlainGRPOTrainer,
    SharedPromptGRPOTrainer,
    SharedPromptRLOOTrainer,
    train_online,
)
from regrade.policy_training.trainers.ppo import PPOConfig, PPOTrainer, train_ppo
from regrade.policy_training.trainers.settings import OnlineSettings, PPOSettings, passes_per_step
from regrade.policy_training.trainers.trajectories import TrajectoryBatch, action_spans

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


def recorded(trainer: Any, task_ids: Sequence[str], _seed: int) -> Iterator[tuple[int, AgentSample]]:
    """Plays `EPISODES`; the last one ends first."""
    assert task_ids == ["a"] * 4
    model = trainer.accelerator.unwrap_model(trainer.model)
    rollout = Rollout(task_id="a", policy="", temperature=1.0, sample=0, seed=0, patch=Patch(""))
    played = [AgentSample(rollout, with_log_probs(model, episode)) for episode in EPISODES]
    return reversed(list(enumerate(played)))


def trainer_of(
    language_model: LanguageModel, out: Path, kind: type, config: type, rewards: Sequence[float | None], **more: Any
) -> Any:
    trajectories = TrajectoryBatch(recorded, more.pop("credit", "trajectory"))
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
        train_dataset=Dataset.from_list([{"prompt": "a", "task_id": "a"}] * 4), trajectories=trajectories,
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


@pytest.mark.parametrize("algorithm", ["grpo", "step", "rloo", "ppo"])
def test_a_group_that_cannot_be_judged_teaches_nothing(
    language_model: LanguageModel, tmp_path: Path, algorithm: str
) -> None:
    kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "grpo": (SharedPromptGRPOTrainer, GRPOConfig, {}),
        "step": (SharedPromptGRPOTrainer, GRPOConfig, {"credit": "step"}),
        "rloo": (SharedPromptRLOOTrainer, RLOOConfig, {}),
        "ppo": (PPOTrainer, PPOConfig, {"num_generations": 1, "kl_coef": 0.0}),
    }
    kind, config, more = kinds[algorithm]
    trainer = trainer_of(language_model, tmp_path, kind, config, [None] * 4, **more)
    batch = trainer._generate_and_score_completions(ROWS)
    assert not batch["advantages"].any()
    loss = trainer._compute_loss(trainer.model, batch)
    assert torch.isfinite(loss)
    gradients = torch.autograd.grad(loss, list(trainer.model.parameters()), allow_unused=True, materialize_grads=True)
    assert not any(bool(gradient.any()) for gradient in gradients)


def test_a_generation_spread_over_steps_keeps_each_rows_mask_and_credit(
    language_model: LanguageModel, tmp_path: Path
) -> None:
    seen: list[dict[str, Any]] = []

    class Watched(SharedPromptGRPOTrainer):
        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            seen.append(inputs)
            return super()._compute_loss(model, inputs)

    size = {"per_device_train_batch_size": 2, "num_generations": 2, "steps_per_generation": 2, "max_steps": 2}
    more = {"credit": "step", "steps": STEPS, "scale_rewards": "none"}
    trainer = trainer_of(language_model, tmp_path, Watched, GRPOConfig, [1.0, 0.0, 0.0, 1.0], **size, **more)
    trainer.train()
    known = {episode.tokens: episode for episode in EPISODES}
    found = [
        (known[tuple(ids[kept.bool()].tolist())], mask[kept.bool()], advantages)
        for batch in seen
        for ids, kept, mask, advantages in zip(
            batch["completion_ids"], batch["completion_mask"], batch["tool_mask"], batch["advantages"], strict=True
        )
    ]
    assert {episode.tokens for episode, _, _ in found} == set(known)
    for episode, mask, advantages in found:
        assert mask.tolist() == [int(own) for own in episode.is_action]
        assert float(advantages[0]) == pytest.approx([0.5, -0.5, -0.5, 0.5][EPISODES.index(episode)])
        assert not advantages[: len(mask)][mask == 0].any()


# ---------------------------------------------------------------- real episodes


AGENT = AgentFormat(EpisodeLimits(turns=2, test_runs=2), max_action_tokens=16, max_tokens=300)


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "ppo"])
def test_agents_train_on_executed_tests(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path, algorithm: Any
) -> None:
    rows: list[dict[str, float]] = []

    def log(_step: int, _seconds: float, numbers: Mapping[str, float]) -> None:
        rows.append(dict(numbers))

    costs = StepCosts(turn=0.01, test_run=0.05, unreadable=0.1, refused=0.05)
    more: dict[str, Any] = {"out": tmp_path, "budget": Budget(steps=2), "seed": 0, "agent": AGENT, "log": log}
    if algorithm == "ppo":  # three passes per step
        shaped = StepRewards(costs=costs, shaping="measured")
        ppo = PPOSettings(epochs=2, samples_per_prompt=6)
        train_ppo(undecided, tasks, scorer, ppo, step_rewards=shaped, **more)
    else:
        online = OnlineSettings(algorithm=algorithm, learning_rate=1e-3, prompts_per_step=2, samples_per_prompt=6)
        train_online(undecided, tasks, scorer, online, step_rewards=StepRewards(costs=costs), **more)
    assert {"turns", "test_runs", "tested", "taken_back", "mistakes", "truncated", "waiting_share"} <= rows[0].keys()
    assert rows[0]["turns"] > 1
    assert rows[0]["breakage"] > 0
    assert rows[0]["reward/cost(steps)/mean"] < 0
    assert rows[0]["reward/price(breakage)/mean"] > 0
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in rows if "loss" in row)


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "ppo"])
def test_an_agent_of_one_turn_learns_what_a_policy_that_answers_once_learns(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path, algorithm: Any
) -> None:
    learned = []
    for agent in (None, AgentFormat()):
        model = LanguageModel("copy", copy.deepcopy(undecided.model), undecided.tokenizer)
        more: dict[str, Any] = {"out": tmp_path, "budget": Budget(steps=2), "seed": 0, "agent": agent}
        if algorithm == "ppo":
            ppo = PPOSettings(epochs=1, samples_per_prompt=4, prompts_per_pass=2, learning_rate=1e-3)
            train_ppo(model, tasks, scorer, ppo, **more)
        else:
            settings = OnlineSettings(
                algorithm=algorithm, prompts_per_step=2, samples_per_prompt=4, prompts_per_pass=2, learning_rate=1e-3
            )
            train_online(model, tasks, scorer, settings, **more)
        learned.append(list(model.model.parameters()))
    for one, other in zip(*learned, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    before = list(undecided.model.parameters())
    assert not all(torch.equal(new, old) for new, old in zip(learned[0], before, strict=True))


def test_trl_itself_generates_in_turns_and_masks_observations(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GRPOTrainer without the shared prompts: `rollout_func` plays, and no gradient comes from an observation."""
    batches: list[dict[str, Any]] = []
    loss_of, numbers_of = GRPOTrainer._compute_loss, GRPOTrainer._get_per_token_logps_and_entropies

    def compute_loss(trainer: Any, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        assert type(trainer) is PlainGRPOTrainer
        batches.append(inputs)
        observed = (inputs["tool_mask"] * inputs["completion_mask"]) == 0
        scaled = [torch.ones(observed.shape), torch.where(observed, torch.randn(observed.shape), 1.0)]
        assert not torch.equal(*scaled)
        gradients = []
        for factors in scaled:

            def numbers(*args: Any, factors: torch.Tensor = factors, **kwargs: Any) -> Any:
                log_probs, *rest = numbers_of(*args, **kwargs)
                return log_probs * factors, *rest

            monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", numbers)
            loss = loss_of(trainer, model, inputs)
            gradients.append(torch.autograd.grad(loss, model.base_model.norm.weight, retain_graph=True)[0])
        torch.testing.assert_close(*gradients)
        return loss

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", compute_loss)
    rows: list[dict[str, float]] = []
    settings = OnlineSettings(algorithm="grpo", prompts_per_step=2, samples_per_prompt=6, generation="trl")
    train_online(
        undecided, tasks, scorer, settings, out=tmp_path, budget=Budget(steps=1), seed=0, agent=AGENT,
        log=lambda _step, _seconds, numbers: rows.append(dict(numbers)),
    )  # fmt: skip
    assert len(batches) == 2  # a step in two passes
    assert rows[0]["turns"] > 1
    assert 0 < rows[0]["waiting_share"] < 1
    assert torch.isfinite(torch.tensor(rows[0]["loss"]))
    for batch in batches:
        own = (batch["tool_mask"] * batch["completion_mask"]).bool()
        for ids, mask in zip(batch["completion_ids"], own, strict=True):
            assert all(ids[end - 1] == END or end - start == 16 for start, end in action_spans(mask.tolist()))


def test_log_probs_of_vllm_stay_with_their_tokens(
    language_model: LanguageModel, make_task: Callable[[str], Task], scorer: Scorer
) -> None:
    """A stand-in for a trainer with vLLM, which returns a log-probability per token; three rows of two tasks."""
    lines = {"second": ["4 return items[1]", "test", "submit"], "add": ["submit"]}
    told: list[list[list[int]]] = []

    class WithVLLM:
        use_vllm = True
        metrics: ClassVar[dict[str, float]] = {}

        def _log_metric(self, name: str, value: float) -> None:
            self.metrics[name] = value

        def _generate_single_turn(self, prompts: list[list[int]], *_: Any) -> tuple[list[list[int]], list[list[float]]]:
            told.append(prompts)
            texts = [language_model.decode(prompt) for prompt in prompts]
            names = ["add" if "self.value" in text else "second" for text in texts]
            answers = [[*language_model.encode(lines[name][len(told) - 1]), END] for name in names]
            return answers, [[-token / 1000 for token in answer] for answer in answers]

    known = {name: make_task(name) for name in lines}
    agent = AgentFormat(EpisodeLimits(turns=3), max_action_tokens=30, max_tokens=300)
    policy = AgentPolicy(language_model, scorer, "trained", agent)
    over: list[str] = []
    batch = TrajectoryBatch(turnwise_play(policy, known, 1.0), when_over=lambda rollout: over.append(rollout.task_id))
    out = batch.rollout(["second", "second", "add"], WithVLLM())
    assert over == ["add", "second", "second"]
    assert [len(prompts) for prompts in told] == [3, 2, 2]
    for row, (ids, mask, log_probs) in enumerate(
        zip(out["completion_ids"], out["env_mask"], out["logprobs"], strict=True)
    ):
        assert log_probs == [-token / 1000 if own else 0.0 for token, own in zip(ids, mask, strict=True)]
        actions = [language_model.decode(ids[start:end]) for start, end in action_spans(mask)]
        assert actions == lines[batch.latest[row].rollout.task_id]
        assert told[0][row] == out["prompt_ids"][row]
    assert told[2][0] == out["prompt_ids"][0] + out["completion_ids"][0][: -len(language_model.encode("submit")) - 1]
    assert [sample.rollout.sample for sample in batch.latest] == [0, 1, 0]
    assert [bool(sample.rollout.patch.text) for sample in batch.latest] == [True, True, False]
    assert WithVLLM.metrics["waiting_seconds"] <= WithVLLM.metrics["generation_seconds"]


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_trl_itself_trains_on_single_answers(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path, algorithm: Any
) -> None:
    rows: list[dict[str, float]] = []
    settings = OnlineSettings(algorithm=algorithm, prompts_per_step=2, samples_per_prompt=4, generation="trl")
    train_online(
        undecided, tasks, scorer, settings, out=tmp_path, budget=Budget(steps=1), seed=0,
        log=lambda _step, _seconds, numbers: rows.append(dict(numbers)),
    )  # fmt: skip
    assert torch.isfinite(torch.tensor(rows[0]["loss"]))
    assert "turns" not in rows[0]
    assert "generation_seconds" not in rows[0]


def test_what_cannot_train_is_refused_with_the_way_out(
    undecided: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(**options: Any) -> None:
        given = {name: options.pop(name) for name in ("agent", "step_rewards") if name in options}
        settings = OnlineSettings(**{"algorithm": "grpo", **options})
        train_online(undecided, tasks, scorer, settings, out=tmp_path, budget=Budget(steps=1), seed=0, **given)

    with pytest.raises(UserError, match="vllm is not installed"):
        train(generation="vllm")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: "found")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no GPU for it: set generation to 'shared'"):
        train(generation="vllm")
    with pytest.raises(UserError, match="generation is 'magic'; give shared or trl or vllm"):
        train(generation="magic")
    with pytest.raises(UserError, match="RLOOTrainer masks no observations"):
        train(algorithm="rloo", generation="trl", agent=AGENT)
    with pytest.raises(UserError, match="train by grpo"):
        train(algorithm="rloo", credit="step")
    with pytest.raises(UserError, match="TRL's own trainers do not know; use 'shared'"):
        train(generation="trl", credit="step")
    with pytest.raises(UserError, match="set credit to 'step', or train by ppo"):
        train(agent=AGENT, step_rewards=StepRewards(shaping="seen"))
    with pytest.raises(UserError, match="give `agent`"):
        train(step_rewards=StepRewards())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("prompts", "samples", "wanted", "is_agent", "expected"),
    [(8, 8, None, False, 1), (8, 8, None, True, 8), (8, 4, None, True, 4), (8, 8, 3, False, 4), (6, 1, None, True, 1),
     (32, 1, None, True, 4), (7, 1, 1, True, 1), (7, 2, 1, True, 7), (1, 8, None, True, 1)],
)  # fmt: skip
def test_a_step_is_learned_from_in_equal_passes(
    prompts: int, samples: int, wanted: int | None, is_agent: bool, expected: int
) -> None:
    settings = PPOSettings(samples_per_prompt=samples, prompts_per_pass=wanted)
    assert passes_per_step(prompts, settings, is_agent=is_agent) == expected


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_passes_add_up_to_the_gradient_of_one(language_model: LanguageModel, tmp_path: Path, algorithm: str) -> None:
    """A step in one pass, and in two passes of half the rows."""
    moved = []
    for passes in (1, 2):
        model = copy.deepcopy(language_model)
        more = {"per_device_train_batch_size": 4 // passes, "gradient_accumulation_steps": passes, "max_steps": 1}
        more |= {"steps_per_generation": passes, "learning_rate": 1.0, "optim": "sgd", "max_grad_norm": 0.0}
        kind, config, own = (
            (SharedPromptGRPOTrainer, GRPOConfig, {"scale_rewards": "none", "num_generations": 4})
            if algorithm == "grpo"
            else (PPOTrainer, PPOConfig, {"num_generations": 1, "num_iterations": 1, "value_learning_rate": 0.0})
        )
        if algorithm == "grpo":
            own["num_generations"] = 2  # two groups of the same task
        trainer = trainer_of(model, tmp_path, kind, config, [0.0, 1.0, 1.0, 0.0], **(more | own))
        trainer.train()
        moved.append([weight.detach().clone() for weight in model.model.parameters()])
    for mine, reference in zip(*moved, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-3)
    before = list(language_model.model.parameters())
    assert not all(torch.equal(mine, old) for mine, old in zip(moved[0], before, strict=True))
