"""All that the trainers override or read of TRL's and transformers' private parts, which may change in any release.

This is the one list of it. A new minor version of TRL is allowed in pyproject.toml once these tests pass with it; a
failure names the method, and the methods here that override it are to be read beside the new one.
"""

from __future__ import annotations

import functools
import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import Trainer
from trl import GRPOTrainer, RewardTrainer, RLOOTrainer, SFTTrainer
from trl.trainer.base_trainer import _BaseTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from regrade.policy_training.reward_models.preference_trainer import SharedPromptRewardTrainer, _PairCollator
from regrade.policy_training.trainers import resuming, shared_prompt_trainer, stability
from regrade.policy_training.trainers.online import (
    REINFORCE_TRAINERS,
    PlainGRPOTrainer,
    PlainRLOOTrainer,
    SharedPromptGRPOTrainer,
    SharedPromptRLOOTrainer,
)
from regrade.policy_training.trainers.ppo import PPOTrainer
from regrade.policy_training.trainers.sft import _AnswerTrainer

ROOT = Path(__file__).resolve().parents[3]
OURS: tuple[type, ...] = (
    PlainGRPOTrainer, PlainRLOOTrainer, SharedPromptGRPOTrainer, SharedPromptRLOOTrainer, PPOTrainer, _AnswerTrainer,
    SharedPromptRewardTrainer, _PairCollator, *REINFORCE_TRAINERS.values(),
)  # fmt: skip
IMAGES = "pixel_values, image_grid_thw, num_images, pixel_attention_mask, spatial_shapes, num_tiles, image_sizes"
LOG_PROBS = (
    "self, model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss, "
    f"{IMAGES}, token_type_ids, mm_token_type_ids, image_position_ids"
)
EPOCH = (
    "self, model, epoch, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, trial, ignore_keys_for_eval, "
    "start_time, resume_from_checkpoint, epochs_trained, steps_trained_in_current_epoch"
)
LOSS = "self, model, inputs, return_outputs, num_items_in_batch"
STEP = "self, model, inputs, num_items_in_batch"
REWARDS = "self, inputs, prompts, completions, completion_ids_list"

Overridden = dict[tuple[type, str], tuple[str, str]]
"""(class of TRL or transformers, method) -> (its parameters, the classes here that override it)."""
OVERRIDES: Overridden = {
    # Whole attempts as a batch: sampled by us, with each prompt once, and rewarded.
    (GRPOTrainer, "_generate"): ("self, prompts", "EarlyVerdicts SharedPrompts"),
    (RLOOTrainer, "_generate"): ("self, prompts", "EarlyVerdicts SharedPrompts"),
    (GRPOTrainer, "_generate_single_turn"): (
        "self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images", "SharedPrompts",
    ),
    (RLOOTrainer, "_generate_single_turn"): (
        "self, prompt_ids, images, multimodal_fields", "SharedPromptRLOOTrainer SharedPrompts",
    ),
    (RLOOTrainer, "_tokenize_prompts"): ("self, prompts", "SharedPromptRLOOTrainer"),
    (GRPOTrainer, "_generate_and_score_completions"): (
        "self, inputs", "EarlyVerdicts PPOTrainer PlainGRPOTrainer ReinforceTrainer SharedPrompts",
    ),
    (RLOOTrainer, "_generate_and_score_completions"): ("self, inputs", "EarlyVerdicts SharedPrompts"),
    (GRPOTrainer, "_calculate_rewards"): (REWARDS, "SharedPrompts"),
    (RLOOTrainer, "_calculate_rewards"): (REWARDS, "SharedPrompts"),
    # Passes: groups stay together, a prompt is run once, rows without advantage are left out.
    (GRPOTrainer, "_prepare_inputs"): ("self, generation_batch", "SharedPrompts"),
    (RLOOTrainer, "_prepare_inputs"): ("self, generation_batch", "SharedPrompts"),
    (GRPOTrainer, "_get_per_token_logps_and_entropies"): (LOG_PROBS, "SharedPrompts"),
    (RLOOTrainer, "_get_per_token_logps_and_entropies"): (LOG_PROBS, "SharedPrompts"),
    (GRPOTrainer, "_compute_loss"): ("self, model, inputs", "PPOTrainer SharedPrompts"),
    (RLOOTrainer, "_compute_loss"): ("self, model, inputs", "SharedPromptRLOOTrainer SharedPrompts"),
    (SFTTrainer, "compute_loss"): (LOSS, "_AnswerTrainer"),
    (RewardTrainer, "compute_loss"): (LOSS, "SharedPromptRewardTrainer"),
    (DataCollatorForPreference, "torch_call"): ("self, examples", "_PairCollator"),
    # The stability guard reads a step before the optimizer takes it.
    (GRPOTrainer, "training_step"): (STEP, "GuardedSteps"),
    (RLOOTrainer, "training_step"): (STEP, "GuardedSteps"),
    (SFTTrainer, "training_step"): ("self, args, kwargs", "GuardedSteps"),
    (Trainer, "_clip_grad_norm"): ("self, model", "GuardedSteps"),
    # A training that is killed goes on.
    (GRPOTrainer, "_get_train_sampler"): ("self, dataset", "Resumable"),
    (RLOOTrainer, "_get_train_sampler"): ("self, dataset", "Resumable"),
    (Trainer, "_get_train_sampler"): ("self, train_dataset", "Resumable SharedPromptRewardTrainer"),
    (Trainer, "_get_output_dir"): ("self, trial", "Resumable"),
    (_BaseTrainer, "create_model_card"): ("self, model_name, dataset_name, tags", "Resumable"),
    (GRPOTrainer, "_save_checkpoint"): ("self, model, trial", "Resumable"),
    (RLOOTrainer, "_save_checkpoint"): ("self, model, trial", "Resumable"),
    (SFTTrainer, "_save_checkpoint"): ("self, model, trial", "Resumable"),
    (Trainer, "_load_from_checkpoint"): ("self, resume_from_checkpoint, model", "PPOTrainer Resumable"),
    (Trainer, "_issue_warnings_after_load"): ("self, load_result", "Resumable"),
    (Trainer, "_run_epoch"): (EPOCH, "Resumable"),
    # PPO's critic, and SFT's budget.
    (Trainer, "_save"): ("self, output_dir, state_dict", "PPOTrainer"),
    (Trainer, "create_optimizer"): ("self, model", "PPOTrainer"),
    (Trainer, "create_scheduler"): ("self, num_training_steps, optimizer", "_AnswerTrainer"),
}  # fmt: skip


class Read(NamedTuple):
    """What is read or written of a trainer, without being overridden."""

    owners: tuple[type, ...]
    why: str


ONLINE = (GRPOTrainer, RLOOTrainer)
READS = {
    "_step": Read(ONLINE, "passes so far: which slice of a generation is learned, what a state keeps"),
    "_buffered_inputs": Read(ONLINE, "answers that further steps learn from: kept in states, dropped at a rollback"),
    "_metrics": Read(ONLINE, "numbers of a step that the guard judges, and where further ones are logged"),
    "_log_metric": Read(ONLINE, "seconds of generation and execution"),
    "_pending_metrics": Read(ONLINE, "what `_log_metric` fills"),
    "_total_train_tokens": Read((SFTTrainer,), "a count of the log, kept in states"),
    "_current_train_step_time": Read(ONLINE, "a count of the log, kept in states"),
    "_load_rng_state": Read((Trainer,), "random states of an epoch that goes on"),
    "rollout_func": Read((GRPOTrainer,), "what plays an agent's episodes"),
    "env_mask": Read((GRPOTrainer,), "of `rollout_func`: which tokens are actions"),
    "current_gradient_accumulation_steps": Read(ONLINE, "the normaliser of PPO's critic"),
    "eos_token_ids": Read(ONLINE, "where an answer ends"),
    "reward_funcs": Read(ONLINE, "whose verdicts begin before TRL asks for them"),
    "reward_weights": Read(ONLINE, "the reward of an attempt"),
    "aux_loss_enabled": Read((SFTTrainer,), "whether the loss of a mixture's router is on"),
}


@functools.cache
def source(kind: type) -> str:
    """Of a class and its bases outside of this project."""
    return "\n".join(
        inspect.getsource(each) for each in kind.__mro__ if each.__module__.split(".")[0] in ("trl", "transformers")
    )


def overridden() -> dict[tuple[type, str], set[str]]:
    """Each method of a foreign class that a class of this project replaces in one of its trainers."""
    found: dict[tuple[type, str], set[str]] = {}
    for kind in OURS:
        foreign = [each for each in kind.__mro__ if not each.__module__.startswith("regrade") and each is not object]
        for own in (each for each in kind.__mro__ if each.__module__.startswith("regrade")):
            for name in vars(own):
                owner = next((each for each in foreign if name in vars(each)), None)
                if owner is not None and not name.startswith("__"):
                    found.setdefault((owner, name), set()).add(own.__name__)
    return found


def test_every_override_is_listed() -> None:
    listed = {key: set(classes.split()) for key, (_, classes) in OVERRIDES.items()}
    assert overridden() == listed


@pytest.mark.parametrize(("kind", "name"), OVERRIDES, ids=lambda part: getattr(part, "__name__", part))
def test_the_overridden_method_is_what_it_was(kind: Any, name: str) -> None:
    parameters, _ = OVERRIDES[kind, name]
    assert ", ".join(inspect.signature(vars(kind)[name]).parameters) == parameters


@pytest.mark.parametrize("name", READS)
def test_what_is_read_still_exists(name: str) -> None:
    for owner in READS[name].owners:
        assert re.search(rf"\b{name}\b", source(owner)), f"{owner.__name__} has no {name}: {READS[name].why}"


def test_states_and_numbers_of_a_trainer_are_listed() -> None:
    """Private names of TRL that these modules use are in the list above."""
    assert set(resuming.OF_TRAINERS) <= READS.keys()
    for module in (resuming, stability, shared_prompt_trainer):
        used = set(re.findall(r"(?:self|trainer)\.(_[a-z]\w*)", inspect.getsource(module)))
        ours = {
            name for kind in OURS for own in kind.__mro__ if own.__module__.startswith("regrade") for name in vars(own)
        }
        theirs = {
            name
            for name in used - ours
            if any(re.search(rf"self\.{name}\b|def {name}\b", source(kind)) for kind in ONLINE)
        }
        assert theirs <= READS.keys(), (module.__name__, theirs - READS.keys())


def test_the_installed_version_is_the_pinned_minor_one() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (pinned,) = (requirement for requirement in extras["train"] if requirement.startswith("trl"))
    first, last = re.fullmatch(r"trl>=1\.(\d+),<1\.(\d+)", pinned).groups()  # type: ignore[union-attr]
    assert int(last) == int(first) + 1
    assert version("trl").split(".")[:2] == ["1", first]
    assert f"trl=={version('trl')}" in (ROOT / "constraints" / "train.txt").read_text().split()


def test_the_base_splits_a_generation_by_rows() -> None:
    """Why `_prepare_inputs` is overridden: TRL shuffles single rows. Its functions still work on dicts of tensors."""
    from trl.trainer.utils import split_tensor_dict

    halves = split_tensor_dict({"rows": torch.arange(4), "none": None}, 2)
    assert [half["rows"].tolist() for half in halves] == [[0, 1], [2, 3]]
    assert "shuffle_sequence_dict" in inspect.getsource(GRPOTrainer._prepare_inputs)
