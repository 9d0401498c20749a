"""What leaves the frozen layers for an example never changes: compute it once, and train the rest from there.

SFT passes over the same examples many times. With the bottom two thirds of a model frozen, half of the arithmetic of a
step is a forward pass whose result is known from the epoch before.
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
    """Inside, training steps of `model` take what leaves its frozen bottom layers from memory, once it is known.

    Yields whether that is possible. It is not, and nothing changes, if no layer is frozen or if the model does more
    with embeddings than to hand them to its first layer: a few tokens, run whole and in two parts, tell.
    Only batches padded on the right, without position ids of their own, are served; others run as ever. At most
    `limit_bytes` are kept, on the model's device; what does not fit is computed each time.
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
    """Ends a forward pass where the frozen layers end."""


@dataclass(frozen=True)
class _LayerSplit:
    """A model's layers: frozen ones at the bottom, then those that learn."""

    base: Any
    name: str
    whole: ModuleList
    learning: ModuleList

    @classmethod
    def of(cls, model: Any) -> _LayerSplit | None:
        """None if the lowest layer learns, or if none does."""
        name, whole = layer_stack(model)
        learns = [any(weight.requires_grad for weight in layer.parameters()) for layer in whole]
        if not any(learns) or learns[0]:
            return None
        first = learns.index(True)
        return cls(model.base_model, name, whole, whole[first:])

    def use(self, layers: ModuleList) -> None:
        """Let the model consist of these layers."""
        owner, _, attribute = self.name.rpartition(".")
        setattr(self.base.get_submodule(owner), attribute, layers)

    @torch.no_grad()
    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What reaches the first layer that learns, as [rows, length, width]."""
        captured: list[Tensor] = []

        def stop(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            captured.append(args[0] if args else kwargs["hidden_states"])
            raise _ReachedLearningLayersError

        training = self.base.training
        self.base.eval()  # no dropout: it would differ each time
        hook = self.learning[0].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.base(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        except _ReachedLearningLayersError:
            return captured[0]
        finally:
            hook.remove()
            self.base.train(training)
        raise AssertionError("the model never ran the first of its layers that learn")

    @torch.no_grad()
    def is_separable(self) -> bool:
        """Do the layers that learn, given what leaves the frozen ones, end where the whole model ends?"""
        if len(set(getattr(self.base.config, "layer_types", None) or ())) > 1:
            return False  # such models tell a layer's kind by its number
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
    """Hidden states after the frozen layers, by the tokens of an example."""

    layers: _LayerSplit
    limit_bytes: int
    _kept: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)
    _bytes: int = 0

    def states(self, batch: dict[str, Any]) -> Tensor:
        """As [rows, length, width], 0 where the batch is padded."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        lengths = mask.sum(1).tolist()
        keys = [tuple(row[:length].tolist()) for row, length in zip(ids, lengths, strict=True)]
        missing = [index for index, key in enumerate(keys) if key not in self._kept]
        rows = {index: self._kept[key] for index, key in enumerate(keys) if key in self._kept}
        if missing:
            fresh = self.layers.states(ids[missing], mask[missing])
            for index, states in zip(missing, fresh, strict=True):
                rows[index] = states[: lengths[index]]
                self._keep(keys[index], rows[index])
        states = rows[0].new_zeros(*ids.shape, rows[0].shape[-1])
        for index, row in rows.items():
            states[index, : len(row)] = row
        return states

    def _keep(self, key: tuple[int, ...], states: Tensor) -> None:
        size = states.numel() * states.element_size()
        if key not in self._kept and self._bytes + size <= self.limit_bytes:
            self._kept[key] = states.clone()  # not a view that keeps the whole batch alive
            self._bytes += size


def _right_padded(batch: dict[str, Any]) -> bool:
    mask = batch.get("attention_mask")
    if batch.get("input_ids") is None or batch.get("position_ids") is not None or mask is None or mask.dim() != 2:
        return False
    return bool((mask[:, :-1] >= mask[:, 1:]).all() and mask[:, 0].all())
