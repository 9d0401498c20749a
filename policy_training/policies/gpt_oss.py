"""What GPT-OSS needs beyond other models before it learns: attention with sinks, unpacked weights, its end tokens.

Its weights are published packed in 4 bits (MXFP4). Packed weights have no gradient, so they are unpacked on loading to
train. Its attention spends weight on learned *sinks*, which are no tokens; only transformers' `eager` attention has
their gradient.
"""

from __future__ import annotations

from typing import Any

from regrade.datasets.errors import UserError
from regrade.policy_training.policies.harmony import Harmony
from regrade.policy_training.policies.models import LanguageModel

GPT_OSS = "gpt_oss"


def prepare_to_train(language_model: LanguageModel, *, is_agent: bool = True) -> None:
    """Check a model before it learns, and set the tokens that end its actions. Does nothing to other models.

    Raises:
        UserError: it is a GPT-OSS whose sinks or weights would not learn, or that is not trained as an agent.
    """
    name, model = language_model.name, language_model.model
    let_generate(model)
    harmony = Harmony.of(language_model.tokenizer)
    if harmony is not None:
        if not is_agent:
            raise UserError(f"model {name!r} answers in harmony messages: train it as an agent (`agent=`)")
        model.generation_config.eos_token_id = harmony.stop_ids
    if model.config.model_type != GPT_OSS:
        return
    if harmony is None:
        raise UserError(f"model {name!r} is a GPT-OSS, and its tokenizer has no harmony tokens: give it its own one")
    attention = model.config._attn_implementation
    if attention != "eager":
        raise UserError(
            f"model {name!r} computes attention by {attention!r}, in which its sinks do not learn: load it with "
            "attn_implementation='eager'"
        )
    if is_packed(model):
        raise UserError(
            f"model {name!r} has packed MXFP4 weights, which have no gradient: load it by load_model(..., "
            "to_train=True), which unpacks them, or with Mxfp4Config(dequantize=True)"
        )


def let_generate(model: Any) -> None:
    """A mixture of experts whose configuration asks for the router's loss, as TRL's SFT leaves it, cannot generate."""
    if getattr(model.config, "output_router_logits", False):
        model.config.output_router_logits = False


def is_packed(model: Any) -> bool:
    """Are its experts packed in 4 bits?"""
    return any(type(module).__name__.startswith("Mxfp4") for module in model.modules())
