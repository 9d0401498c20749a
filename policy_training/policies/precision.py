"""In which precision a model computes: in bfloat16 where that is faster, whatever its weights are stored in.

Weights that learn stay in float32, as small updates would round away. The passes of training round their matrix
products to bfloat16 on a GPU and on CPUs with instructions for it, which halves their time; on such a CPU a rounded
copy of the weights generates. So the tokens that a seed gives differ between such a machine and others, and, more often
than in float32, with the size of a batch. The variable `REGRADE_PRECISION` (`float32` or `bfloat16`) decides otherwise;
a CPU without the instructions computes in bfloat16 as well, only slowly.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from regrade.datasets.errors import UserError

VARIABLE = "REGRADE_PRECISION"
PRECISIONS = ("float32", "bfloat16")
SMALL = 50_000_000
"""Parameters below which a model is fast on a CPU anyway, and stays in float32."""


def uses_bfloat16(device: str, parameters: int = SMALL) -> bool:
    """Does a model of so many parameters compute in bfloat16 on this kind of device (`cpu`, `cuda`)?

    Raises:
        UserError: the variable is no precision.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen not in ("", *PRECISIONS):
        raise UserError(f"{VARIABLE} is {chosen!r}: set it to {' or '.join(PRECISIONS)}, or unset it")
    if chosen:
        return chosen == "bfloat16"
    return device != "cpu" or (parameters >= SMALL and _cpu_has_bfloat16())


def _cpu_has_bfloat16() -> bool:
    import torch

    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _is_rounded(model: Any) -> bool:
    """Are the model's weights in float32, while it computes in bfloat16?"""
    import torch

    return model.dtype == torch.float32 and uses_bfloat16(model.device.type, model.num_parameters())


def to_sample_from(model: Any) -> Any:
    """The model, or, on a CPU, a copy of it in bfloat16 to generate with.

    On a GPU a model that learns generates in float32: a copy would take memory that the training needs.
    """
    import torch

    if model.device.type != "cpu" or not _is_rounded(model):
        return model
    # Weights alone are rounded, not buffers: a rounded frequency of rotary positions is wrong by radians far from the
    # start. A deep copy takes what its memo holds instead of a weight, so that no second copy in float32 is made.
    rounded = {
        id(weight): torch.nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, rounded).eval()


@contextmanager
def sampler_of(model: Any) -> Iterator[Any]:
    """Inside the `with` block, `to_sample_from(model)`, which keeps caches: a model that learns with gradient
    checkpointing drops them."""
    was_training = model.training
    model.eval()
    try:
        yield to_sample_from(model)
    finally:
        model.train(was_training)


@contextmanager
def mixed_precision(model: Any) -> Iterator[None]:
    """Inside the `with` block, matrix products of a model in float32 round to bfloat16 where it computes so; a model
    with weights in bfloat16 computes in them anyway."""
    import torch

    with torch.autocast(model.device.type, torch.bfloat16, enabled=_is_rounded(model)):
        yield
