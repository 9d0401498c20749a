"""GPT-OSS end to end, of the real architecture and small: SFT on executed calls, GRPO and PPO over several turns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GptOssConfig, GptOssForCausalLM, PreTrainedTokenizerFast
from transformers.integrations.mxfp4 import Mxfp4GptOssExperts
from trl import GRPOTrainer

from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_policy import AgentFormat, AgentPolicy, dialogues_of
from regrade.policy_training.environments.agent_tools import EpisodeLimits, RepositoryEnvironment
from regrade.policy_training.environments.demonstration_formats import CallExpert
from regrade.policy_training.environments.demonstrations import (
    Demonstration,
    DemonstrationSettings,
    Demonstrator,
    transcript_of,
)
from regrade.policy_training.environments.harmony_actions import call_text, tokenized_calls
from regrade.policy_training.policies.adapters import add_lora
from regrade.policy_training.policies.harmony import Harmony
from regrade.policy_training.policies.models import LanguageModel, load_model
from regrade.policy_training.policies.transcripts import TokenizedEpisode, Transcript, Turn
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.online import PlainGRPOTrainer, train_online
from regrade.policy_training.trainers.ppo import ValueHead, train_ppo
from regrade.policy_training.trainers.ratio_drift import RatioDrift, learned_log_probs, ratio_drift, sampled_log_probs
from regrade.policy_training.trainers.settings import OnlineSettings, PPOSettings, SFTSettings
from regrade.policy_training.trainers.sft import train_sft
from regrade.policy_training.trainers.trajectories import TrajectoryBatch, action_spans

AGENT = AgentFormat(EpisodeLimits(turns=4, test_runs=1), max_action_tokens=64, max_tokens=300)
SFT = SFTSettings(learning_rate=1e-2, batch_size=2)


def untrained(tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_local_experts=8,
        num_experts_per_tok=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, sliding_window=32,
        initializer_range=0.2, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LanguageModel("tiny-gpt-oss", GptOssForCausalLM(config).eval(), tokenizer)


@pytest.fixture(scope="module")
def task(make_task: Callable[[str], Task]) -> Task:
    return make_task("second")


@pytest.fixture(scope="module")
def traces(task: Task, scorer: Scorer) -> list[Transcript]:
    """An edit and what its tests say: one right, one wrong. All was executed."""
    traces = []
    for new in ("items[1]", "items[0]"):
        environment = RepositoryEnvironment({task.id: task}, scorer, AGENT.limits)
        instruction = environment.reset(task.id)
        shown = [environment.edit("library.py", "items[2]", new), environment.run_tests(), environment.submit()]
        calls = [("edit", {"path": "library.py", "old": "items[2]", "new": new}), ("run_tests", {}), ("submit", {})]
        turns = [Turn(call_text(*call), text) for call, text in zip(calls, shown, strict=True)]
        traces.append(Transcript(instruction, (*turns[:-1], Turn(turns[-1].action))))
    return traces


@pytest.fixture(scope="module")
def log() -> list[dict[str, float]]:
    return []


@pytest.fixture(scope="module")
def undecided_folder(
    harmony_tokenizer: PreTrainedTokenizerFast,
    traces: list[Transcript],
    log: list[dict[str, float]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A saved GPT-OSS that learned both traces."""
    folder = tmp_path_factory.mktemp("gpt-oss")
    policy = untrained(harmony_tokenizer)
    train_sft(
        policy, traces, SFT, out=folder / "trainer", budget=Budget(steps=50), seed=0,
        log=lambda _step, _seconds, numbers: log.append(dict(numbers)),
    )  # fmt: skip
    return policy.save(folder / "sft")


@pytest.fixture
def undecided(undecided_folder: Path) -> LanguageModel:
    return load_model(str(undecided_folder), device="cpu")


def test_the_shared_sampler_and_passes_have_sinks_and_sliding_windows(
    harmony_tokenizer: PreTrainedTokenizerFast, task: Task, scorer: Scorer
) -> None:
    """Over several turns, with prompts and observations far longer than the window of 32 tokens."""
    policy = untrained(harmony_tokenizer)
    samples = AgentPolicy(policy, scorer, "untrained", AGENT).sample([task], [Sampling(1.0, 3)], 0)
    episodes = [sample.tokens for sample in samples]
    assert max(len(action_spans(each.is_action)) for each in episodes) > 1
    expected = []
    for each in episodes:
        with torch.no_grad():
            logits = policy.model(torch.tensor([[*each.prompt, *each.tokens]])).logits[0, len(each.prompt) - 1 : -1]
        of_tokens = logits.log_softmax(-1).gather(1, torch.tensor(each.tokens)[:, None])[:, 0]
        expected.append(of_tokens[torch.tensor(each.is_action)])
    assert ratio_drift(sampled_log_probs(episodes), torch.cat(expected)).largest < 1e-4
    assert ratio_drift(learned_log_probs(policy.model, episodes, together=True), torch.cat(expected)).largest < 1e-4
    sinks = policy.model.model.layers[0].self_attn.sinks
    sinks.data += 1.0
    assert ratio_drift(learned_log_probs(policy.model, episodes, together=True), torch.cat(expected)).largest > 1e-3


def test_sft_learns_calls_sinks_and_the_router(
    undecided: LanguageModel, log: list[dict[str, float]], task: Task, scorer: Scorer
) -> None:
    before = dict(untrained(undecided.tokenizer).model.named_parameters())
    assert log[-1]["loss"] < 0.2 * log[0]["loss"]
    assert all(1.9 < numbers["aux_loss"] < 8 for numbers in log), "with 2 of 8 experts, 2 is balanced and 8 is not"
    for name, weight in undecided.model.named_parameters():
        if "sinks" in name or "router.weight" in name:
            assert not torch.equal(weight, before[name]), name
    policy = AgentPolicy(undecided, scorer, "sft", AGENT)
    rollouts = [sample.rollout for sample in policy.sample([task], [Sampling(1.0, 8)], 0)]
    episodes = [rollout.episode for rollout in rollouts if rollout.episode is not None]
    assert any([step.tool for step in episode.steps] == ["edit", "run_tests", "submit"] for episode in episodes)
    malformed = [step for episode in episodes for step in episode.steps if not step.tool]
    assert malformed, "a small policy writes some headers that are malformed"
    assert all(step.is_mistake for step in malformed)
    assert {rollout.lost for rollout in rollouts} == {""}


def test_learned_tokens_are_those_that_a_player_would_sample(
    traces: list[Transcript], undecided: LanguageModel, task: Task, scorer: Scorer
) -> None:
    """The prompt, every observation and every action, token for token, with the real environment in between."""
    harmony = Harmony(undecided.tokenizer)
    (dialogue,) = dialogues_of(AgentPolicy(undecided, scorer, "player", AGENT), task, [1.0])
    learned = tokenized_calls(traces[0], harmony)
    played: list[int] = []
    is_action: list[bool] = []
    for turn in traces[0].turns:
        function, _, arguments = turn.action.partition(" ")
        action = harmony.call(function, json.loads(arguments))
        shown = dialogue.reply(action) or []
        played += [*action, *shown]
        is_action += [*[True] * len(action), *[False] * len(shown)]
    assert tuple(dialogue.prompt) == learned.prompt
    assert tuple(played) == learned.tokens
    assert tuple(is_action) == learned.is_action
    assert dialogue.rollout("player", 0, 0, 0.0).patch == dialogue.rollout("player", 0, 0, 0.0).episode.patch  # type: ignore[union-attr]


@dataclass
class Seen:
    """What the trainers played, and what their losses got."""

    episodes: list[TokenizedEpisode] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)
    logged: list[dict[str, float]] = field(default_factory=list)

    def log(self, _step: int, _seconds: float, numbers: Any) -> None:
        self.logged.append(dict(numbers))

    def rows(self) -> set[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
        """(prompt, completion, mask) of all rows of the losses, without padding."""
        rows = set()
        for batch in self.batches:
            for number in range(len(batch["prompt_ids"])):
                kept = batch["completion_mask"][number].bool()
                prompt = batch["prompt_ids"][number][batch["prompt_mask"][number].bool()]
                own = batch["tool_mask"][number][: len(kept)][kept]
                rows.add(
                    (tuple(prompt.tolist()), tuple(batch["completion_ids"][number][kept].tolist()), tuple(own.tolist()))
                )
        return rows


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen, loss, generate = Seen(), GRPOTrainer._compute_loss, TrajectoryBatch.generate

    def watched_loss(self: Any, model: Any, inputs: Any) -> Any:
        seen.batches.append(dict(inputs))
        return loss(self, model, inputs)

    def watched_generate(self: Any, *args: Any) -> Any:
        played = generate(self, *args)
        seen.episodes += [sample.tokens for sample in played]
        return played

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", watched_loss)
    monkeypatch.setattr(TrajectoryBatch, "generate", watched_generate)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("generation", ["shared", "trl"])
@pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
def test_grpo_over_several_turns(
    generation: Any, undecided: LanguageModel, seen: Seen, task: Task, scorer: Scorer, tmp_path: Path
) -> None:
    before = {name: weight.detach().clone() for name, weight in undecided.model.named_parameters()}
    settings = OnlineSettings(
        algorithm="grpo", prompts_per_step=1, samples_per_prompt=8, learning_rate=1e-3, generation=generation
    )
    train_online(
        undecided, [task], scorer, settings, out=tmp_path, budget=Budget(steps=2), seed=1, agent=AGENT, log=seen.log
    )
    for numbers in seen.logged:
        assert numbers["turns"] > 1
        assert 0 < numbers["fix_and_clean"] + numbers["breakage"] + numbers["malformed"] <= 1
        assert 1.9 < numbers["aux_loss"] < 8
        assert numbers["clip_ratio/region_mean"] == 0.0
    changed = {name for name, weight in undecided.model.named_parameters() if not torch.equal(weight, before[name])}
    assert {name for name in before if "sinks" in name or "router.weight" in name} <= changed
    recorded = {(each.prompt, each.tokens, tuple(map(int, each.is_action))) for each in seen.episodes}
    assert seen.rows() <= recorded, "the loss gets the tokens that were sampled"
    assert len(seen.rows()) > 1
    assert not any("old_per_token_logps" in batch for batch in seen.batches), "on-policy: the ratio is 1 by definition"


@pytest.mark.parametrize(("iterations", "steps", "is_kept"), [(1, 1, False), (2, 1, True), (1, 2, True)])
def test_on_policy_no_other_pass_is_compared_with(
    iterations: int, steps: int, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TRL's trainer with vLLM returns it."""
    returned = {"old_per_token_logps": torch.zeros(1), "importance_sampling_ratio": torch.ones(1)}
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", lambda _self, _inputs: dict(returned))
    trainer = object.__new__(PlainGRPOTrainer)
    trainer.num_iterations = iterations
    trainer.args = SimpleNamespace(steps_per_generation=steps, gradient_accumulation_steps=1)
    batch = trainer._generate_and_score_completions([])
    assert ("old_per_token_logps" in batch) is is_kept
    assert "importance_sampling_ratio" in batch


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 2])
def test_ppo_over_several_turns_and_on_from_its_checkpoint(
    epochs: int,
    undecided: LanguageModel,
    undecided_folder: Path,
    seen: Seen,
    task: Task,
    scorer: Scorer,
    tmp_path: Path,
) -> None:
    settings = PPOSettings(prompts_per_step=1, samples_per_prompt=4, epochs=epochs, learning_rate=1e-3)
    train_ppo(
        undecided, [task], scorer, settings, out=tmp_path, budget=Budget(steps=2), seed=1, agent=AGENT, log=seen.log
    )
    recorded = {(each.prompt, each.tokens, tuple(map(int, each.is_action))) for each in seen.episodes}
    assert seen.rows() <= recorded
    assert all(1.9 < numbers["aux_loss"] < 8 and math.isfinite(numbers["value/loss"]) for numbers in seen.logged)
    first, second = seen.batches
    if epochs == 1:
        assert not any("old_per_token_logps" in batch for batch in seen.batches)
    else:
        own = first["tool_mask"] * first["completion_mask"] > 0
        sampler = load_model(str(undecided_folder), device="cpu").model
        mine = learned_log_probs(sampler, seen.episodes, together=False)
        assert ratio_drift(sampled_log_probs(seen.episodes), mine).largest < 1e-4, "the sampler's are the trainer's"
        assert float(first["old_per_token_logps"][own].sum()) == pytest.approx(float(mine.sum()), rel=1e-4)
        assert second["old_per_token_logps"].shape == first["old_per_token_logps"].shape
        saved = undecided.save(tmp_path / "checkpoint")
        again = load_model(str(saved), to_train=True)
        train_ppo(
            again, [task], scorer, settings, out=tmp_path, budget=Budget(steps=1), seed=2, agent=AGENT,
            value_head=ValueHead.load(tmp_path), log=seen.log,
        )  # fmt: skip
        assert math.isfinite(seen.logged[-1]["loss"])


def test_another_pass_changes_ratios_in_bfloat16_and_not_in_float32(
    harmony_tokenizer: PreTrainedTokenizerFast, traces: list[Transcript]
) -> None:
    policy = untrained(harmony_tokenizer)
    episodes = [tokenized_calls(trace, Harmony(harmony_tokenizer)) for trace in traces]

    def drift(model: Any) -> RatioDrift:
        alone, together = (learned_log_probs(model, episodes, together=each) for each in (False, True))
        return ratio_drift(alone, together)

    assert drift(policy.model).largest < 1e-4
    exact = learned_log_probs(policy.model, episodes, together=True)
    rounded = ratio_drift(learned_log_probs(policy.model.bfloat16(), episodes, together=True), exact)
    assert rounded.largest > 0.01, rounded
    assert ratio_drift(exact, exact) == (0.0, 0.0, 0.0)


def test_what_would_not_learn_is_refused(
    undecided: LanguageModel,
    traces: list[Transcript],
    tokenizer: PreTrainedTokenizerFast,
    task: Task,
    scorer: Scorer,
    tmp_path: Path,
) -> None:
    def sft(model: LanguageModel, examples: Sequence[Transcript] = traces) -> None:
        train_sft(model, examples, SFT, out=tmp_path, budget=Budget(steps=1), seed=0)

    with pytest.raises(UserError, match="no call of a tool, and the model answers in harmony"):
        sft(undecided, [Transcript.of_answer("Fix:", "4 return 1")])
    ppo = PPOSettings(prompts_per_step=1, samples_per_prompt=2)
    with pytest.raises(UserError, match="train it as an agent"):
        train_ppo(undecided, [task], scorer, ppo, out=tmp_path, budget=Budget(steps=1), seed=0)
    with pytest.raises(UserError, match="its tokenizer has no harmony tokens"):
        sft(LanguageModel("other", undecided.model, tokenizer), [Transcript.of_answer("Fix:", "4 return 1")])
    undecided.model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UserError, match="'flash_attention_2', in which its sinks do not learn"):
        sft(undecided)
    undecided.model.config._attn_implementation = "eager"
    undecided.model.model.layers[0].mlp.experts = Mxfp4GptOssExperts(undecided.model.config)
    with pytest.raises(UserError, match="packed MXFP4 weights, which have no gradient"):
        sft(undecided)


def test_published_weights_in_4_bits_are_read(
    harmony_tokenizer: PreTrainedTokenizerFast, traces: list[Transcript], tmp_path: Path
) -> None:
    """The format of the published weights: two values a byte, and an exponent for 32 of them."""
    policy = untrained(harmony_tokenizer)
    folder = policy.save(tmp_path / "packed")
    weights, experts = load_file(folder / "model.safetensors"), {}
    values = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])
    torch.manual_seed(1)
    for name in [name for name in weights if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        count, inner, outer = weights.pop(name).shape
        codes = torch.randint(0, 16, (count, outer, inner // 32, 32))
        exponents = torch.randint(120, 128, (count, outer, inner // 32))
        weights[f"{name}_blocks"] = (codes[..., ::2] + 16 * codes[..., 1::2]).to(torch.uint8)
        weights[f"{name}_scales"] = exponents.to(torch.uint8)
        experts[name] = (
            (values[codes] * 2.0 ** (exponents[..., None] - 127)).reshape(count, outer, inner).transpose(1, 2)
        )
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": kept}
    (folder / "config.json").write_text(json.dumps(config))
    policy = load_model(str(folder), device="cpu", to_train=True)
    assert len(experts) == 4
    for name, weight in policy.model.named_parameters():
        assert weight.dtype == torch.float32
        if name in experts:
            assert torch.equal(weight, experts[name]), name
    train_sft(policy, traces, SFT, out=tmp_path, budget=Budget(steps=1), seed=0)
    again = load_model(str(policy.save(tmp_path / "learned")), device="cpu")
    for name, weight in again.model.named_parameters():
        assert torch.equal(weight, policy.model.get_parameter(name)), name


def test_the_experts_traces_are_calls(task: Task, scorer: Scorer, harmony_tokenizer: PreTrainedTokenizerFast) -> None:
    """A wrong edit and its calls stay in the text, and only right calls are learned."""
    shares = DemonstrationSettings(with_refusal=0, second_mistake=0.0, look=0.0)
    limits, harmony = EpisodeLimits(turns=9, test_runs=2), Harmony(harmony_tokenizer)
    for made in Demonstrator([task], scorer, limits, shares, form=CallExpert).make():
        assert isinstance(made, Demonstration), made
        (row,) = made.rows
        episode = tokenized_calls(transcript_of(row), harmony)
        spans = [episode.tokens[start:end] for start, end in action_spans(episode.is_action)]
        said = [harmony.read(span)[-1] for span in spans]
        steps = [step for step, is_learned in zip(made.episode.steps, made.learned, strict=True) if is_learned]
        assert [(each.function, json.loads(each.text)) for each in said] == [(s.tool, s.arguments) for s in steps]
        assert len(steps) == len(made.episode.steps) - made.mistakes


@pytest.mark.slow
def test_adapters_alone_learn_are_saved_and_go_on(
    undecided: LanguageModel, seen: Seen, task: Task, scorer: Scorer, tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="needs the package peft")
    before = {name: weight.detach().clone() for name, weight in undecided.model.named_parameters()}
    assert 0 < add_lora(undecided, rank=2, alpha=4, experts=True) < sum(map(torch.numel, before.values()))
    with pytest.raises(UserError, match="has adapters already"):
        add_lora(undecided)

    def grpo(policy: LanguageModel) -> None:
        settings = OnlineSettings(algorithm="grpo", prompts_per_step=1, samples_per_prompt=8, learning_rate=1e-2)
        train_online(
            policy, [task], scorer, settings, out=tmp_path, budget=Budget(steps=1), seed=1, agent=AGENT, log=seen.log
        )

    grpo(undecided)
    assert seen.logged[-1]["grad_norm"] > 0
    for name, weight in undecided.model.named_parameters():
        if "lora_" not in name:
            assert torch.equal(weight, before[name.replace(".base_layer", "")]), name
    with pytest.raises(UserError, match="needs a second model"):
        train_ppo(undecided, [task], scorer, PPOSettings(), out=tmp_path, budget=Budget(steps=1), seed=0, agent=AGENT)

    folder = undecided.save(tmp_path / "adapters")
    assert not (folder / "model.safetensors").exists()
    again = load_model(str(folder), device="cpu", to_train=True)
    ids = torch.tensor([Harmony(again.tokenizer).plain("def second(items):")])
    with torch.no_grad():
        assert torch.equal(again.model.eval()(ids).logits, undecided.model.eval()(ids).logits)
    assert {name for name, weight in again.model.named_parameters() if weight.requires_grad} == {
        name for name, _ in undecided.model.named_parameters() if "lora_" in name
    }
    grpo(again)
    assert seen.logged[-1]["grad_norm"] > 0
