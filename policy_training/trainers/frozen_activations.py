"""A cache of the outputs of frozen layers, which never change for an example.

SFT passes over the same examples many times. With the bottom two thirds of a model frozen, half of the arithmetic of a
step is a forward pass with the same result as in the epoch before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import ModuleList

from regrade.policy_training.trainers.callbacks import layer_stack


@contextmanager
def cached_frozen_activations(model: Any, limit_bytes: int = 1 << 30) -> Iterator[bool]:
    """Inside the `with` block, training steps of `model` reuse the outputs of its frozen bottom layers.

    Only batches padded on the right, without explicit position ids, use the cache. At most `limit_bytes` are cached, on
    the model's device; other outputs are computed each time.

    Yields:
        whether the cache is in use. It is not if no layer is frozen, or if the model processes embeddings before its
        first layer, which a comparison on a few tokens detects.
    """
    layers = _LayerSplit.of(model)
    if layers is None or not layers.is_separable():
        yield False
        return
    memory = _ActivationCache(layers, limit_bytes)

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if module.training and torch.is_grad_enabled() and not args and _right_padded(kwargs):
            kwargs = {**kwargs, "input_ids": None, "inputs_embeds": memory.states(kwargs)}
            layers.use(layers.learning)
        return args, kwargs

    def after(*_: Any) -> None:
        layers.use(layers.whole)

    hooks = (
        layers.base.register_forward_pre_hook(before, with_kwargs=True),
        layers.base.register_forward_hook(after, always_call=True),
    )
    try:
        yield True
    finally:
        for hook in hooks:
            hook.remove()


class _ReachedLearningLayersError(Exception):
    """Ends a forward pass after the frozen layers."""


@dataclass(frozen=True)
class _LayerSplit:
    """A model's layers: frozen ones at the bottom, then the learning ones."""

    base: Any
    name: str
    whole: ModuleList
    learning: ModuleList

    @classmethod
    def of(cls, model: Any) -> _LayerSplit | None:
        """None if the lowest layer learns, or no layer does."""
        name, whole = layer_stack(model)
        learns = [any(weight.requires_grad for weight in layer.parameters()) for layer in whole]
        if not any(learns) or learns[0]:
            return None
        first = learns.index(True)
        return cls(model.base_model, name, whole, whole[first:])

    def use(self, layers: ModuleList) -> None:
        """Replace the model's layers by these."""
        owner, _, attribute = self.name.rpartition(".")
        setattr(self.base.get_submodule(owner), attribute, layers)

    @torch.no_grad()
    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The input of the first learning layer, (rows, length, hidden)."""
        captured: list[Tensor] = []

        def stop(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            captured.append(args[0] if args else kwargs["hidden_states"])
            raise _ReachedLearningLayersError

        training = self.base.training
        self.base.eval()  # without dropout, which would differ each time
        hook = self.learning[0].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.base(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        except _ReachedLearningLayersError:
            return captured[0]
        finally:
            hook.remove()
            self.base.train(training)
        raise AssertionError("the model never ran its first learning layer")

    @torch.no_grad()
    def is_separable(self) -> bool:
        """Do the learning layers, on the outputs of the frozen ones, have the outputs of the whole model?"""
        if len(set(getattr(self.base.config, "layer_types", None) or ())) > 1:
            return False  # such models derive a layer's kind from its index
        ids = torch.arange(8, device=self.base.device)[None]
        mask = torch.ones_like(ids)
        training = self.base.training
        self.base.eval()
        try:
            expected = self.base(input_ids=ids, attention_mask=mask, use_cache=False)[0]
            states = self.states(ids, mask)
            self.use(self.learning)
            continued = self.base(inputs_embeds=states, attention_mask=mask, use_cache=False)[0]
        finally:
            self.use(self.whole)
            self.base.train(training)
        return bool(torch.allclose(expected, continued, rtol=1e-3, atol=1e-4))


@dataclass
class _ActivationCache:
    """Hidden states after the frozen layers, keyed by the token ids of an example."""

    layers: _LayerSplit
    limit_bytes: int
    _stored: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)
    _bytes: int = 0

    def states(self, batch: dict[str, Any]) -> Tensor:
        """(rows, length, hidden), 0 on padding."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        lengths = mask.sum(1).tolist()
        keys = [tuple(row[:length].tolist()) for row, length in zip(ids, lengths, strict=True)]
        rows = {}
        for index, (key, length) in enumerate(zip(keys, lengths, strict=True)):
            if key not in self._stored:
                # Alone: with others its rounding would depend on them, and a training that goes on after a kill first
                # sees it with others than the one that was killed.
                rows[index] = self.layers.states(ids[index : index + 1, :length], mask[index : index + 1, :length])[0]
                self._store(key, rows[index])
            else:
                rows[index] = self._stored[key]
        states = rows[0].new_zeros(*ids.shape, rows[0].shape[-1])
        for index, row in rows.items():
            states[index, : len(row)] = row
        return states

    def _store(self, key: tuple[int, ...], states: Tensor) -> None:
        size = states.numel() * states.element_size()
        if key not in self._stored and self._bytes + size <= self.limit_bytes:
            self._stored[key] = states.clone()  # a view would keep the whole batch in memory
            self._bytes += size


def _right_padded(batch: dict[str, Any]) -> bool:
    mask = batch.get("attention_mask")
    if batch.get("input_ids") is None or batch.get("position_ids") is not None or mask is None or mask.dim() != 2:
        return False
    return bool((mask[:, :-1] >= mask[:, 1:]).all() and mask[:, 0].all())
