"""LoRA (Hu et al. 2106.09685): small matrices beside frozen weights learn, so that a large model fits on one GPU."""

from __future__ import annotations

from pathlib import Path
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


def load_adapters(model: Any, folder: Path) -> None:
    """Take over, in place, the values of the learning adapters that `save_pretrained` wrote of the same model.

    Raises:
        UserError: the file is of other adapters.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    path, (name,) = folder / "adapter_model.safetensors", model.active_adapters()
    stored = {key.removeprefix("base_model.model."): weight for key, weight in load_file(path).items()}
    result: Any = set_peft_model_state_dict(model, stored, adapter_name=name)
    learning = {key for key, weight in model.named_parameters() if weight.requires_grad}
    if wrong := [*result.unexpected_keys, *learning.intersection(result.missing_keys)]:
        raise UserError(f"{path} is of other adapters than this model's: they differ in {min(wrong)}")
