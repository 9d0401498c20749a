"""A mixin for TRL's online trainers that runs each prompt once, in generation and in log-probabilities.

Used as `class X(SharedPrompts, GRPOTrainer)`. TRL provides the sampling of tasks, advantages, losses, clipping,
logging and checkpoints. With `trajectories`, a completion is a whole trajectory; otherwise it is one answer.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import split_tensor_dict

from regrade.policy_training.policies.precision import sampler_of
from regrade.policy_training.policies.row_batch import Completion
from regrade.policy_training.policies.sampling import ROWS, stream
from regrade.policy_training.trainers.drift import is_on_policy, ratio_distance, sequence_distance
from regrade.policy_training.trainers.executed_tests import EarlyVerdicts
from regrade.policy_training.trainers.processes import check_alone
from regrade.policy_training.trainers.shared_prompts import (
    PackedRow,
    pack,
    passes,
    prediction_states,
    token_log_probs,
    unflatten,
)
from regrade.policy_training.trainers.trajectories import TrajectoryBatch

LEAST_ADVANTAGE = 1e-6
"""Smaller ones are rounding errors."""


class SharedPrompts(EarlyVerdicts):
    """Mixin: groups rows by prompt in sampling and in log-probabilities, and times the parts of a step.

    Args:
        trajectories: what plays; the prompts of the data set are then ids of tasks. Default: None: one answer.

    Raises:
        UserError: it is launched in several processes.
    """

    def __init__(self, model: Any, *, args: Any, trajectories: TrajectoryBatch | None = None, **kwargs: Any) -> None:
        # Copied before the base class changes the model. The base class would load the reference from the folder that
        # the model was loaded from, which may differ from the model now; so it first hears of no KL penalty.
        beta, args.beta = args.beta, 0.0
        reference = frozen_copy(model) if beta else None
        super().__init__(model, args=args, **kwargs)  # type: ignore[call-arg]
        self.beta = args.beta = beta
        self.ref_model = None if reference is None else reference.to(self.accelerator.device)  # type: ignore[attr-defined]
        self.trajectories = trajectories
        if trajectories is not None:
            self.rollout_func = trajectories.rollout
        # These passes bypass DistributedDataParallel, so gradients would silently not be averaged.
        check_alone("training with shared prompts")
        self._sampled: dict[tuple[tuple[int, ...], tuple[int, ...]], list[float]] = {}
        self._actions: Tensor | None = None
        """(B, C) of the rows that the next passes run: 1 on the policy's own tokens; None: on all."""
        self._learned_from: Tensor | None = None
        """(B, C) log-probabilities of the latest pass with a gradient."""
        self._sampled_at = 0
        """The step of the weights that sampled the present attempts."""
        self._balance: list[Tensor] | None = None
        """Receives the router's loss of each pass."""
        self._rewards = torch.empty(0)
        """(B,) of the latest batch: the weighted sums of the reward functions, NaN for unscored attempts."""

    answer_batch_rows = ROWS
    """Completions decoded at a time."""
    can_reuse_sampled_log_probs = True
    """Are the sampler's log-probabilities sufficient for the sampling policy, without a forward pass?"""
    tokens_per_pass = 6144
    """Tokens of packed rows per forward pass."""

    def _prepare_inputs(self: Any, generation_batch: Any) -> Any:
        """As in TRL, but if a generation is spread over several steps, each step gets complete groups: TRL distributes
        single rows, which would run a prompt again in almost every step."""
        if not self.model.training or self.args.steps_per_generation == 1:
            return super()._prepare_inputs(generation_batch)  # type: ignore[misc]
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            generated = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(_groups_shuffled(generated, self.num_generations), steps)
        return self._buffered_inputs[self._step % steps]

    def _generate_and_score_completions(self: Any, inputs: Any) -> dict[str, Any]:
        """As in TRL; for trajectories with their mask, of which RLOOTrainer knows nothing."""
        self._actions, self._sampled_at = None, self.state.global_step
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        self._drop_rounding(batch["advantages"])
        if self._actions is None:
            return batch
        if self.trajectories.credit == "step":
            batch["advantages"] = self.trajectories.step_advantages(batch["advantages"], self.num_generations)
        return {"tool_mask": self._actions} | batch

    def _drop_rounding(self: Any, advantages: Tensor) -> None:
        """A group of equal rewards whose mean rounds has advantages of 1e-8, which Adam would scale to whole steps."""
        advantages[advantages.abs() < LEAST_ADVANTAGE] = 0.0
        flat = advantages.view(-1, self.num_generations)
        if self.num_generations > 1:
            metrics = self._metrics["train" if self.model.training else "eval"]
            metrics["frac_reward_zero_std"][-1] = float((flat == 0).all(1).float().mean())

    def _calculate_rewards(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(*args, **kwargs)  # type: ignore[misc]
        weighted = rewards * self.reward_weights.to(rewards.device)
        self._rewards = weighted.nansum(1).masked_fill(rewards.isnan().all(1), torch.nan)
        return rewards

    def _generate(self: Any, prompts: list[Any]) -> Any:
        generated = super()._generate(prompts)
        if self.trajectories is not None:
            episodes = [trajectory.tokens for trajectory in self.trajectories.latest]
            self._actions = self.trajectories.mask(self.accelerator.device)
            self._sampled = {(each.prompt, each.tokens): list(each.log_probs) for each in episodes if each.log_probs}
        return generated

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> Any:
        """Completions, and log-probabilities of an external sampler (none)."""
        return self._completions(prompt_ids), None

    def _completions(self, prompt_ids: list[list[int]]) -> list[list[int]]:
        """Completions for `prompt_ids`, in which TRL repeats each prompt once per requested completion."""
        began = time.perf_counter()
        waiting: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(prompt_ids):
            waiting.setdefault(tuple(prompt), []).append(row)
        out: list[list[int]] = [[] for _ in prompt_ids]
        prompts = list(waiting)
        answers = self._sample(prompts, max(map(len, waiting.values())))
        self._sampled.clear()
        for index, completions in answers:
            for row, completion in zip(waiting[prompts[index]], completions, strict=False):
                out[row] = completion.tokens
                self._sampled[prompts[index], tuple(completion.tokens)] = completion.log_probs
            mine = waiting[prompts[index]]
            self._begin_verdicts(mine, [out[row] for row in mine])
        self._log_metric("generation_seconds", time.perf_counter() - began)  # type: ignore[attr-defined]
        return out

    def _sample(self: Any, prompts: list[tuple[int, ...]], samples: int) -> Iterator[tuple[int, list[Completion]]]:
        with sampler_of(self.accelerator.unwrap_model(self.model)) as model:
            yield from stream(
                model,
                prompts,
                [self.temperature] * samples,
                stop_ids=list(self.eos_token_ids),
                max_tokens=self.args.max_completion_length,
                rows=self.answer_batch_rows,
                seed=int(torch.randint(2**62, ())),  # from torch's generator, which the trainer seeds and checkpoints
            )

    def _get_per_token_logps_and_entropies(
        self: Any,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Per-token log-probabilities of (B, P + C) rows, left-padded prompts first: (B, C), (B, C) or None, and the
        router's loss of a mixture of experts or None, in which a prompt counts once for all of its completions."""
        del batch_size
        if (
            self.can_reuse_sampled_log_probs
            and not torch.is_grad_enabled()
            and not compute_entropy
            and model is self.model
        ):
            # No weight changes between sampling and the first step, so the sampler's log-probabilities are still valid.
            log_probs = self._log_probs_of_sampling(input_ids, attention_mask, logits_to_keep)
            if log_probs is not None:
                return log_probs, None, None
        self._balance = [] if compute_aux_loss else None
        numbers = self._numbers_of_tokens(model, input_ids, attention_mask, logits_to_keep, entropy=compute_entropy)
        if torch.is_grad_enabled():
            self._learned_from = numbers["log_probs"].detach()
        balance, self._balance = self._balance, None
        return numbers["log_probs"], numbers.get("entropies"), torch.stack(balance).mean() if balance else None

    def _log_probs_of_sampling(self, input_ids: Tensor, attention_mask: Tensor, width: int) -> Tensor | None:
        """The (B, C) log-probabilities from sampling, for one use; None if one is missing."""
        split = input_ids.shape[1] - width
        prompts = _without_padding(input_ids[:, :split], attention_mask[:, :split])
        answers = _without_padding(input_ids[:, split:], attention_mask[:, split:])
        keys = [(tuple(prompt), tuple(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
        sampled, self._sampled = self._sampled, {}
        if any(answer and (prompt, answer) not in sampled for prompt, answer in keys):
            return None
        # a masked answer, which its limit of tokens cut off, has no tokens left
        rows = [torch.tensor(sampled[key] if key[1] else [], device=input_ids.device) for key in keys]
        return torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])

    def _numbers_of_tokens(
        self: Any, model: Any, input_ids: Tensor, attention_mask: Tensor, width: int, *, entropy: bool
    ) -> dict[str, Tensor]:
        """The results of `_numbers_of_rows` as (B, C), 0 on padding and observations; C is `width`."""
        split = input_ids.shape[1] - width
        attended, actions = attention_mask[:, split:], self._actions
        rows, positions = pack(
            _without_padding(input_ids[:, :split], attention_mask[:, :split]),
            _without_padding(input_ids[:, split:], attended),
            None if actions is None else _without_padding(actions, attended),
        )
        written = (attended if actions is None else attended * actions).bool()
        bare = self.accelerator.unwrap_model(model)
        pieces: dict[str, list[list[Tensor]]] = {}
        for start, end in passes([row.length for row in rows], self.tokens_per_pass):
            for name, flat in self._numbers_of_rows(bare, rows[start:end], entropy).items():
                pieces.setdefault(name, []).extend(unflatten(flat, rows[start:end]))
        return {name: _laid_out(tensors, positions, written) for name, tensors in pieces.items()}

    def _numbers_of_rows(self: Any, model: Any, rows: Sequence[PackedRow], entropy: bool) -> dict[str, Tensor]:
        """`log_probs`, and `entropies` on request, one per token of an action, from one pass over packed rows."""
        states = prediction_states(model, rows, self._balance)
        log_probs, spread = token_log_probs(model, rows, states, self.temperature, entropy=entropy)
        numbers = {"log_probs": log_probs, **self._numbers_of_states(model, states)}
        return numbers if spread is None else {**numbers, "entropies": spread}

    def _numbers_of_states(self, model: Any, states: Tensor) -> dict[str, Tensor]:
        """Further numbers of a trainer, one per token of an action, from the hidden states (tokens, hidden)."""
        del model, states
        return {}

    def _compute_loss(self: Any, model: Any, inputs: dict[str, Any]) -> Tensor:
        """TRL's loss over the rows with a gradient: rows of groups without variance have advantage 0."""
        if self.beta == 0.0 and self.can_drop_rows:
            inputs = _with_advantage(inputs)
        self._actions = inputs.get("tool_mask")
        loss: Tensor = super()._compute_loss(model, inputs)  # type: ignore[misc]
        self._log_drift(inputs)
        return loss

    def _log_drift(self: Any, inputs: dict[str, Any]) -> None:
        """Log how far the ratio to the sampling policy is from 1: under the same weights, it should not be."""
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        if self._learned_from is None or not mask.any():
            return
        if "old_logps" in inputs:  # RLOO has sums
            drift = sequence_distance(self._learned_from, inputs["old_logps"], mask)
        else:
            sampled = inputs.get("old_per_token_logps")
            if sampled is None:
                sampled = self._known_log_probs(inputs)
            if sampled is None:
                return
            drift = ratio_distance(self._learned_from, sampled, mask)
        name = "drift_on_policy" if is_on_policy(self) else "drift"
        self._metrics["train" if self.model.training else "eval"][f"ratio/{name}"].append(drift)

    def _known_log_probs(self, inputs: dict[str, Any]) -> Tensor | None:
        """(B, C): those of sampling, which this batch did not need."""
        sampled = self._sampled
        found = self._log_probs_of_sampling(
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
            inputs["completion_ids"].shape[1],
        )
        self._sampled = sampled
        return found

    can_drop_rows = True
    """Is the normaliser of the loss independent of rows with advantage 0? (A sum over a fixed count.)"""


def frozen_copy(model: Any) -> Any:
    """A separate model with the same weights, without the hooks and patches of the original."""
    reference = type(model)(copy.deepcopy(model.config)).to(dtype=model.dtype, device=model.device)
    reference.load_state_dict(model.state_dict())
    return reference.requires_grad_(False).eval()


def _groups_shuffled(inputs: dict[str, Any], size: int) -> dict[str, Any]:
    """The rows of `inputs`, in consecutive groups of `size`, with the groups in random order."""
    rows = len(inputs["completion_ids"])
    order = (torch.randperm(rows // size)[:, None] * size + torch.arange(size)).flatten()
    return {
        key: value[order.to(value.device)]
        if isinstance(value, Tensor) and value.dim() > 0 and len(value) == rows
        else [value[index] for index in order]
        if isinstance(value, list) and len(value) == rows
        else value
        for key, value in inputs.items()
    }


def _without_padding(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]


def _laid_out(pieces: list[list[Tensor]], positions: list[tuple[int, int]], written: Tensor) -> Tensor:
    """[row][completion] tensors back as the (B, C) of the inputs, on the written tokens, 0 elsewhere."""
    flat = torch.cat([pieces[row][column] for row, column in positions])
    return torch.zeros(written.shape, dtype=flat.dtype, device=flat.device).masked_scatter(written, flat)


def _with_advantage(inputs: dict[str, Any]) -> dict[str, Any]:
    advantages = inputs["advantages"]
    flat = advantages if advantages.dim() == 1 else advantages.abs().sum(1)
    keep = (flat != 0).nonzero().flatten()
    if len(keep) == 0:
        keep = torch.zeros(1, dtype=torch.long, device=advantages.device)  # a loss of 0 with a graph
    rows = len(advantages)
    return {
        key: value[keep] if isinstance(value, Tensor) and value.dim() > 0 and len(value) == rows else value
        for key, value in inputs.items()
    }
