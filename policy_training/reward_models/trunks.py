"""The trunk of a reward model: a language model without its head, whose activations the heads read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from regrade.datasets.errors import UserError
from regrade.policy_training.policies.models import LanguageModel, load_model
from regrade.policy_training.policies.quiet import quiet_libraries
from regrade.policy_training.reward_models.inputs import FEWEST_TOKENS, PatchInput
from regrade.policy_training.trainers.shared_prompts import pack, passes, pooled_states

FOLDER = "trunk"
TOKENS_PER_PASS = 6144
"""Padded tokens of one forward pass."""


@dataclass
class Trunk:
    """Computes the activations of inputs."""

    base: str
    """Name of the language model that it came from."""
    model: Any
    """transformers.PreTrainedModel without a head, in float32."""
    tokenizer: Any

    @classmethod
    def of(cls, language_model: LanguageModel) -> Trunk:
        """The trunk of a policy, or of any causal language model; they share their weights."""
        return cls(language_model.name, language_model.model.base_model, language_model.tokenizer)

    @classmethod
    def named(cls, base: str) -> Trunk:
        """The trunk of a model by its name (see `load_model`). Raises UserError if there is no such model."""
        return cls.of(load_model(base, to_train=True))

    @classmethod
    def load(cls, folder: Path, base: str) -> Trunk:
        """A trunk that `save` wrote."""
        with quiet_libraries():
            model = AutoModel.from_pretrained(folder / FOLDER, dtype=torch.float32, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(folder / FOLDER, local_files_only=True)
        return cls(base, model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer)

    def save(self, folder: Path) -> None:
        """Write weights and tokenizer into a folder of a reward model."""
        LanguageModel(self.base, self.model, self.tokenizer).save(folder / FOLDER)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights and of the vocabulary."""
        whole = hashlib.sha256(repr(sorted(self.tokenizer.get_vocab().items())).encode())
        for name, weights in sorted(self.model.state_dict().items()):
            whole.update(f"{name} {tuple(weights.shape)}".encode())
            whole.update(weights.detach().cpu().float().numpy().tobytes())
        return whole.hexdigest()

    @property
    def context(self) -> int | None:
        """The longest input, in tokens; None: unlimited, as far as the model says."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def check_tokens(self, tokens: int) -> None:
        """Raises UserError if no input of so many tokens can be read."""
        if tokens < FEWEST_TOKENS:
            raise UserError(f"input_tokens is {tokens}: an input needs at least {FEWEST_TOKENS}")
        if self.context is not None and tokens > self.context:
            raise UserError(
                f"input_tokens is {tokens}, and the model {self.base!r} reads {self.context} at most: give a smaller "
                "number, or another model"
            )

    @torch.no_grad()
    def activations(self, inputs: Sequence[PatchInput]) -> Tensor:
        """(inputs, width) in float32 on the CPU: at the last token, and the mean over the patch's tokens.

        The prompt of a task runs once for all of its patches.
        """
        if not inputs:
            return torch.zeros(0, self.width)
        self.model.eval()
        rows, positions = pack([each.prompt for each in inputs], [each.completion for each in inputs])
        by_place: dict[tuple[int, int], Tensor] = {}
        # Rows of similar lengths need little padding.
        order = sorted(range(len(rows)), key=lambda index: rows[index].length)
        for start, end in passes([rows[index].length for index in order], TOKENS_PER_PASS):
            batch = order[start:end]
            pooled = iter(pooled_states(self.model, [rows[index] for index in batch]).float().cpu())
            by_place |= {
                (index, column): next(pooled) for index in batch for column in range(len(rows[index].completions))
            }
        return torch.stack([by_place[place] for place in positions])

    @property
    def width(self) -> int:
        """Of the activations of one input."""
        return 2 * int(self.model.config.get_text_config().hidden_size)
