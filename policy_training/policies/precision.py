"""In which precision a model computes: in bfloat16 where that is faster, whatever its weights are stored in.

Weights that learn stay in float32, as small updates would round away. Generation and the passes of training round their
arithmetic to bfloat16 on a GPU and on CPUs with instructions for it, which halves their time. So the tokens that a seed
gives differ between such a machine and others, and, more often than in float32, with the size of a batch. The variable
`REGRADE_PRECISION` (`float32` or `bfloat16`) decides otherwise.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

from regrade.datasets.errors import UserError

VARIABLE = "REGRADE_PRECISION"
Precision = Literal["float32", "bfloat16"]
SMALL = 50_000_000
"""Parameters of a model that is fast anyway on a CPU, and stays in float32."""


def precision_of(model: Any) -> Precision:
    """In which a model computes.

    Raises:
        UserError: the variable has another value.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen:
        if chosen not in get_args(Precision):
            raise UserError(f"{VARIABLE} is {chosen!r}; set it to {' or '.join(get_args(Precision))}, or unset it")
        return chosen  # type: ignore[return-value]
    if model.device.type == "cpu" and (not _cpu_has_bfloat16() or model.num_parameters() < SMALL):
        return "float32"
    return "bfloat16"


def _cpu_has_bfloat16() -> bool:
    import torch

    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def to_sample_from(model: Any) -> Any:
    """The model, or a copy of it in bfloat16 to generate with; on a GPU, a model that learns generates as it is."""
    import torch

    if model.device.type != "cpu" or precision_of(model) == "float32" or model.dtype != torch.float32:
        return model
    return copy.deepcopy(model).to(torch.bfloat16).eval()


@contextmanager
def mixed_precision(model: Any) -> Iterator[None]:
    """Inside the `with` block, matrix products of the model round to its precision; the weights stay as they are."""
    import torch

    is_mixed = precision_of(model) == "bfloat16" and model.dtype == torch.float32
    with torch.autocast(model.device.type, torch.bfloat16, enabled=is_mixed):
        yield
