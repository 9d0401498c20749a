"""TRL's own GRPOTrainer runs the environment: a tiny model whose words are a script, all else real."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import get_json_schema
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_chat_template

from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.adapters import verdicts
from regrade.policy_training.adapters.trl import ExecutedOutcome, agent_prompts, environment_factory
from regrade.policy_training.adapters.verdicts import RETRIES
from regrade.policy_training.environments.agent_tools import TOOLS, EpisodeLimits, RepositoryEnvironment
from regrade.policy_training.environments.tool_calls import tool_schemas
from regrade.rewards import tests as passing
from regrade.rewards.evidence import EvidenceSet, Integrity


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


FIX, BREAK = (
    call("edit", path="library.py", old=old, new=new)
    for old, new in (("items[2]", "items[1]"), ("number * 2", "number * 3"))
)
SCRIPTS = [
    [FIX, call("run_tests"), call("submit"), "Done."],
    [call("search", pattern="double"), BREAK, "It is done."],
    ["I cannot help with that."],
    [call("read_file", path="/etc/passwd") + call("fly"), call("undo", to="x"), ""],
]
"""A fix, breakage, no action at all, and nothing but mistakes."""


class Scripted(LlamaForCausalLM):
    """A model that samples what a script says; its log probabilities and gradients are its own."""

    tokenizer: PreTrainedTokenizerFast

    def generate(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        """Each row goes on where its text stands: the scripts differ in their first words."""
        texts = [self.tokenizer.decode(row) for row in input_ids]
        said = []
        for number, text in enumerate(texts):
            begun = [script for script in SCRIPTS if f"assistant\n{script[0]}" in text]
            script = begun[0] if begun else SCRIPTS[number]
            said.append(script[text.count("<|im_start|>assistant") - 1])
        end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        rows = [[*self.tokenizer(text)["input_ids"], end] for text in said]
        longest = max(map(len, rows))
        return torch.cat([input_ids, torch.tensor([row + [pad] * (longest - len(row)) for row in rows])], dim=1)


@pytest.fixture(scope="module")
def scripted() -> Scripted:
    """A Llama of two layers with random weights, which has a chat template with tools."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    bare.train_from_iterator([json.dumps(tool_schemas()), qwen3_chat_template], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|im_end|>", pad_token="<|pad|>")
    tokenizer.chat_template = qwen3_chat_template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=8192, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, initializer_range=0.3,
    )  # fmt: skip
    model = Scripted(config)
    model.tokenizer = tokenizer
    return model


class Watched(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer, which keeps its batches for the test."""

    batches: list[dict[str, Any]]

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        self.batches = [*getattr(self, "batches", []), batch]
        return batch


@pytest.mark.filterwarnings("ignore:You are using 'environment_factory'")
def test_trls_trainer_runs_the_environment_and_learns_from_execution(
    make_task: Callable[[str], Task], scorer: Scorer, scripted: Scripted, tmp_path: Path
) -> None:
    tasks = {"second": make_task("second")}
    settings = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4, max_steps=1, learning_rate=1e-2,
        max_completion_length=2000, report_to="none", use_cpu=True, bf16=False, logging_steps=1, save_strategy="no",
        disable_tqdm=True,
    )  # fmt: skip
    before = scripted.lm_head.weight.detach().clone()
    trainer = Watched(
        model=scripted,
        processing_class=scripted.tokenizer,
        args=settings,
        environment_factory=environment_factory(tasks, scorer, EpisodeLimits(turns=10)),
        reward_funcs=ExecutedOutcome(scorer),
        train_dataset=Dataset.from_list(agent_prompts(tasks)),
    )
    trainer.train()
    log = {key: value for entry in trainer.state.log_history for key, value in entry.items()}
    rewards = [environment.session.episode() for environment in trainer.environments]
    assert [len(episode.steps) for episode in rewards] == [3, 2, 0, 2]
    assert rewards[0].steps[1].tests is not None
    assert rewards[0].steps[1].tests.is_green
    assert "Mend `second`" in scripted.tokenizer.decode(trainer.batches[0]["prompt_ids"][0])

    assert log["rewards/ExecutedOutcome/mean"] == pytest.approx((1.0 - 0.8 - 0.6 + 0.0) / 4)
    assert (log["episodes/fixed"], log["episodes/broke"], log["episodes/unchanged"]) == (0.25, 0.25, 0.5)
    assert log["reward/price(breakage)/mean"] == log["reward/price(no_op)/mean"] == 0.25
    assert log["reward/tests/mean"] == pytest.approx(0.5), "of the fix and of the breakage, which were executed"
    assert log["tools/call_frequency"] == 8 / 4
    assert log["loss"] != 0
    assert torch.isfinite(torch.tensor(log["grad_norm"]))
    assert not torch.equal(before, scripted.lm_head.weight), "the step changed the model"

    (batch,) = trainer.batches
    kept = batch["completion_mask"].bool() & batch["tool_mask"].bool()
    learned = [scripted.tokenizer.decode(row[mask]) for row, mask in zip(batch["completion_ids"], kept, strict=True)]
    seen = scripted.tokenizer.decode(batch["completion_ids"][0])
    assert "0 failed, 4 passed" in seen
    assert learned[0] == "<|im_end|>".join([*SCRIPTS[0], ""])
    assert all("<tool_response>" not in text for text in learned)


def test_the_tools_are_what_transformers_reads_of_the_methods() -> None:
    ours = {schema["function"]["name"]: schema["function"] for schema in tool_schemas()}
    for name in TOOLS:
        theirs = get_json_schema(getattr(RepositoryEnvironment, name))["function"]
        assert theirs["description"] == ours[name]["description"]
        described = {key: value["description"] for key, value in theirs["parameters"]["properties"].items()}
        assert described == {key: value["description"] for key, value in ours[name]["parameters"]["properties"].items()}
        assert theirs["parameters"].get("required", []) == ours[name]["parameters"]["required"]


def test_any_reward_pays_an_episode(make_task: Callable[[str], Task], scorer: Scorer) -> None:
    tasks = {"second": make_task("second")}
    environment = environment_factory(tasks, scorer)()
    environment.reset(**agent_prompts(tasks)[0])
    environment.edit("library.py", "number * 2", "number * 3")
    assert ExecutedOutcome(scorer, passing)([environment]) == [0.0]


class Interrupted(Scorer):
    """A scorer whose sandboxes fail for one attempt, in the judgement of the second step and in all its retries."""

    judgements = 0

    def gather(self, jobs: Sequence[Any], needs: Any, **more: Any) -> list[EvidenceSet]:
        found = super().gather(jobs, needs, **more)
        if Integrity not in needs:  # tests that an agent asks for
            return found
        self.judgements += 1
        is_failing = 2 <= self.judgements <= 2 + RETRIES
        return [EvidenceSet({}, dict.fromkeys(needs, "the daemon died")), *found[1:]] if is_failing else found


@pytest.mark.filterwarnings("ignore:You are using 'environment_factory'")
def test_trl_learns_nothing_from_a_group_with_an_unscored_attempt(
    make_task: Callable[[str], Task],
    evidence: Path,
    scripted: Scripted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdicts, "FIRST_PAUSE", 0.01)
    tasks = {"second": make_task("second")}
    settings = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4, max_steps=3, learning_rate=1e-6,
        max_completion_length=2000, report_to="none", use_cpu=True, bf16=False, logging_steps=1, save_strategy="no",
        disable_tqdm=True,
    )  # fmt: skip
    with Interrupted(workers=1, cache=evidence) as scorer:
        trainer = Watched(
            model=scripted,
            processing_class=scripted.tokenizer,
            args=settings,
            environment_factory=environment_factory(tasks, scorer, EpisodeLimits(turns=10)),
            reward_funcs=ExecutedOutcome(scorer),
            train_dataset=Dataset.from_list(agent_prompts(tasks)),
        )
        trainer.train()
        assert scorer.judgements == 3 + RETRIES
    first, lost, third = (batch["advantages"].tolist() for batch in trainer.batches)
    assert first == third
    assert max(first) > 0 > min(first)
    assert lost == [0.0] * 4, "not the advantages of three attempts against a mean that lacks the fourth"
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert rewards[0] == rewards[2]
    assert rewards[1] is None, "no mean counts the unscored group as 0"
