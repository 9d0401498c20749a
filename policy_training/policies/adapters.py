"""LoRA (Hu et al. 2106.09685): small matrices beside frozen weights learn, so that a large model fits on one GPU."""

from __future__ import annotations

from typing import Any

from regrade.datasets.errors import UserError
from regrade.policy_training.policies.models import INSTALL_TRAINING, LanguageModel, let_adapters_learn

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")


def add_lora(language_model: LanguageModel, *, rank: int = 16, alpha: int = 32, experts: bool = False) -> int:
    """Add adapters to the model in place; from then on they alone learn, in float32. Returns their parameters.

    Args:
        rank: of the matrices.
        alpha: an adapter counts alpha / rank times.
        experts: also beside the weights of GPT-OSS's experts. Default: beside those of the attention alone.

    Raises:
        UserError: peft is not installed, the model has adapters already, or a number is out of range.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise UserError(f"LoRA needs peft, which is not installed: {INSTALL_TRAINING}") from error
    if rank < 1 or alpha < 1:
        raise UserError(f"rank is {rank!r} and alpha {alpha!r}; give whole numbers of at least 1")
    model = language_model.model
    if has_adapters(model):
        raise UserError(f"the model {language_model.name!r} has adapters already: go on with them, without `lora_rank`")
    beside = list(EXPERTS) if experts else None
    model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(ATTENTION), target_parameters=beside))
    return let_adapters_learn(model)


def has_adapters(model: Any) -> bool:
    """Do adapters learn, and all else stays?"""
    return bool(getattr(model, "_hf_peft_config_loaded", False))
