"""GPT-OSS with LoRA: what a step needs on paper, and, on a GPU, how large a model really learns there, and how fast.

    python benchmarks/gpt_oss.py                       # the paper for gpt-oss-20b; measured, a tiny one on this CPU
    python benchmarks/gpt_oss.py --minutes 9           # on a machine with a GPU: up to the 24 layers of gpt-oss-20b
    python benchmarks/gpt_oss.py --tokens 8192 --rows 4

The weights are random, of the real architecture (attention sinks, sliding windows, 32 experts of which 4 are used), so
nothing is downloaded: memory and time do not depend on their values. A step is one of GRPO: sample answers to one
prompt, run their tokens again with a gradient, update the adapters. On a GPU the number of layers grows while the next
size fits by the formula and by the time left. Measured too: how far log-probabilities of a pass of their own are from
those of the sampler, in the model's precision.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from _latest import record
from transformers import GptOssConfig, GptOssForCausalLM

from regrade.datasets.errors import UserError
from regrade.policy_training.policies.adapters import add_lora
from regrade.policy_training.policies.gpt_oss import is_packed
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.sampling import stream
from regrade.policy_training.policies.transcripts import TokenizedEpisode
from regrade.policy_training.trainers.ratio_drift import RatioDrift, learned_log_probs, ratio_drift, sampled_log_probs
from regrade.policy_training.trainers.shared_prompts import pack, prediction_states, token_log_probs

GIB = 1 << 30
GPUS = (("A100 80 GB", 312e12, 2.0e12), ("H100 80 GB", 990e12, 3.35e12), ("H200 141 GB", 990e12, 4.8e12))
"""Name, operations a second in bfloat16, and bytes a second, by their makers."""
BALANCE = 0.001
"""Weight of the router's loss, that of GPT-OSS's configuration."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The architecture; the defaults are those of gpt-oss-20b."""

    layers: int = 24
    hidden: int = 2880
    experts: int = 32
    used_experts: int = 4
    heads: int = 64
    key_heads: int = 8
    head_size: int = 64
    vocabulary: int = 201_088
    window: int = 128

    def layer_parameters(self) -> int:
        expert = self.hidden * 2 * self.hidden + 2 * self.hidden + self.hidden * self.hidden + self.hidden
        queries, keys = self.heads * self.head_size, self.key_heads * self.head_size
        attention = 2 * self.hidden * queries + queries + self.hidden + 2 * (self.hidden * keys + keys) + self.heads
        router = self.hidden * self.experts + self.experts
        return self.experts * expert + attention + router + 2 * self.hidden

    def parameters(self) -> int:
        return self.layers * self.layer_parameters() + 2 * self.vocabulary * self.hidden + self.hidden

    def used_parameters(self) -> int:
        """That one token passes."""
        expert = 3 * self.hidden * self.hidden + 3 * self.hidden
        unused = self.layers * (self.experts - self.used_experts) * expert + self.vocabulary * self.hidden
        return self.parameters() - unused

    def lora_parameters(self, rank: int) -> int:
        queries, keys = self.heads * self.head_size, self.key_heads * self.head_size
        return self.layers * rank * 2 * (self.hidden + queries + self.hidden + keys)

    def config(self) -> GptOssConfig:
        return GptOssConfig(
            vocab_size=self.vocabulary, hidden_size=self.hidden, intermediate_size=self.hidden,
            num_hidden_layers=self.layers, num_local_experts=self.experts, num_experts_per_tok=self.used_experts,
            num_attention_heads=self.heads, num_key_value_heads=self.key_heads, head_dim=self.head_size,
            sliding_window=self.window, bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )  # fmt: skip


TINY = Shape(
    layers=2, hidden=64, experts=8, used_experts=2, heads=8, key_heads=2, head_size=16, vocabulary=2048, window=32
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of training."""

    prompt: int
    """Tokens."""
    answer: int
    """Tokens that the policy writes after it."""
    rows: int
    """Answers, all sampled at a time."""
    rank: int = 16
    rows_of_a_pass: int = 1
    """Answers whose states and logits are kept for one gradient: in GRPO at least a task's, `samples_per_prompt`."""


def memory(shape: Shape, step: Step, weight_bytes: int = 2) -> dict[str, float]:
    """Bytes of a step by what they hold; the formula of docs/gpt-oss.md."""
    row, adapters = step.prompt + step.answer, shape.lora_parameters(step.rank)
    return {
        "weights": weight_bytes * shape.parameters(),
        "adapters, their gradients and Adam": 16 * adapters,
        "keys and values of the sampler": 4
        * shape.layers
        * shape.key_heads
        * shape.head_size
        * (step.prompt + step.rows * step.answer),
        "states kept for the gradient": weight_bytes * shape.layers * shape.hidden * row * step.rows_of_a_pass,
        "attention of the layer that is run again": 4 * weight_bytes * shape.heads * row * row,
        "experts of the layer that is run again": 5 * weight_bytes * shape.used_experts * shape.hidden * row,
        "logits of the answer": 14 * shape.vocabulary * step.answer * step.rows_of_a_pass,
    }


def peak(parts: dict[str, float]) -> float:
    """Sampling and learning follow each other: the larger one counts."""
    sampler = parts["keys and values of the sampler"]
    learning = sum(parts.values()) - sampler
    return max(learning, parts["weights"] + parts["adapters, their gradients and Adam"] + sampler)


def seconds_on_paper(shape: Shape, step: Step, flops: float, bandwidth: float) -> tuple[float, float]:
    """Least seconds of sampling and of learning: every token reads all weights once for all rows, and a token that is
    learned from costs 6 operations a weight (forward, again forward, backward to the states; frozen weights have no
    gradient)."""
    sampling = step.answer * 2 * shape.parameters() / bandwidth
    learning = 6 * shape.used_parameters() * step.rows * (step.prompt + step.answer) / flops
    return sampling, learning


def show_paper(step: Step) -> None:
    shape = Shape()
    parts = memory(shape, step)
    print(
        f"gpt-oss-20b on paper: {shape.parameters():,} parameters, {shape.used_parameters():,} used by a token; LoRA "
        f"of rank {step.rank} beside the attention: {shape.lora_parameters(step.rank):,}"
    )
    print(
        f"one step: {step.rows} answers of {step.answer} tokens to a prompt of {step.prompt}, {step.rows_of_a_pass} "
        "learned from at a time"
    )
    for name, size in parts.items():
        print(f"  {name:45} {size / GIB:7.2f} GiB")
    print(f"  {'peak: sampling or learning':45} {peak(parts) / GIB:7.2f} GiB")
    for name, flops, bandwidth in GPUS:
        sampling, learning = seconds_on_paper(shape, step, flops, bandwidth)
        print(f"  at least, on an {name}: {sampling:6.1f} s of sampling, {learning:5.1f} s of learning")


def measured(shape: Shape, step: Step, device: str) -> dict[str, float]:
    """Build the model, and take one step after a first one that is not counted."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = GptOssForCausalLM(shape.config())
    finally:
        torch.set_default_dtype(before)
    assert not is_packed(model)
    adapters = add_lora(LanguageModel("random", model, None), rank=step.rank)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-5)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    figures: dict[str, float] = {}
    for number in range(2):
        figures = {"parameters": float(sum(each.numel() for each in model.parameters()) - adapters)}
        figures |= _one_step(model, step, shape, optimizer, seed=number)
    if device == "cpu":
        figures["bfloat16_largest"], figures["bfloat16_outside"], figures["bfloat16_gap"] = _rounded(model, step, shape)
    figures["paper_gib"] = peak(memory(shape, step, 2 if device == "cuda" else 4)) / GIB
    if device == "cuda":
        figures["peak_gib"] = torch.cuda.max_memory_allocated() / GIB
    return figures


def _rounded(model: Any, step: Step, shape: Shape) -> RatioDrift:
    """How far a pass in bfloat16 is from one in float32, with the same weights."""
    tokens = torch.randint(shape.vocabulary, (4, step.prompt + step.answer), generator=torch.Generator().manual_seed(9))
    episodes = [
        TokenizedEpisode(tuple(row[: step.prompt]), tuple(row[step.prompt :]), (True,) * step.answer)
        for row in tokens.tolist()
    ]
    exact = learned_log_probs(model, episodes, together=False)
    return ratio_drift(learned_log_probs(copy.deepcopy(model).bfloat16(), episodes, together=False), exact)


def _one_step(model: Any, step: Step, shape: Shape, optimizer: Any, seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(shape.vocabulary, (step.prompt,), generator=generator).tolist()
    began = time.perf_counter()
    model.eval()
    ((_, answers),) = stream(
        model, [prompt], [1.0] * step.rows, stop_ids=[], max_tokens=step.answer, seed=seed, rows=step.rows
    )
    sampling = time.perf_counter() - began
    episodes = [
        TokenizedEpisode(tuple(prompt), tuple(each.tokens), (True,) * len(each.tokens), tuple(each.log_probs))
        for each in answers[:2]
    ]
    drift = ratio_drift(learned_log_probs(model, episodes, together=False), sampled_log_probs(episodes))
    began = time.perf_counter()
    model.train()
    for number, answer in enumerate(answers):
        rows, _ = pack([prompt], [answer.tokens])
        balance: list[torch.Tensor] = []
        log_probs, _ = token_log_probs(model, rows, prediction_states(model, rows, balance))
        ratio = (log_probs - log_probs.detach()).exp()
        assert bool((ratio == 1).all()), "strictly on-policy"
        advantage = 1.0 if number % 2 else -1.0
        (-(advantage * ratio).mean() + BALANCE * balance[0]).div(len(answers)).backward()
    optimizer.step()
    optimizer.zero_grad()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    learning = time.perf_counter() - began
    tokens = step.rows * step.answer
    return {
        "sampled_tokens_per_second": tokens / sampling,
        "learned_tokens_per_second": step.rows * (step.prompt + step.answer) / learning,
        "drift_largest": drift.largest,
        "drift_outside": drift.outside,
        "drift_gap": drift.gap,
    }


def sizes() -> Iterator[int]:
    yield from (1, 2, 4, 8, 12, 16, 20, 24)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="in all")
    parser.add_argument("--tokens", type=int, default=4096, help="of a prompt and its answer, which is a quarter")
    parser.add_argument("--rows", type=int, default=8, help="answers to a prompt")
    options = parser.parse_args()
    if options.tokens < 8 or options.rows < 1 or options.minutes <= 0:
        raise UserError("give at least 8 tokens, 1 row, and minutes above 0")
    end = time.monotonic() + 60 * options.minutes
    answer = options.tokens // 4
    step = Step(prompt=options.tokens - answer, answer=answer, rows=options.rows)
    show_paper(step)
    if not torch.cuda.is_available():
        print("no GPU is here: gpt-oss-20b itself is not measured; a tiny one of its architecture on this CPU is:")
        figures = measured(TINY, Step(prompt=96, answer=32, rows=4), "cpu")
        _show(2, figures)
        record("gpt_oss", {"device": "cpu", **figures})
        return
    total = torch.cuda.get_device_properties(0).total_memory
    print(f"measured on {torch.cuda.get_device_name(0)}, {total / GIB:.0f} GiB:")
    largest: dict[str, float] = {}
    took = 0.0
    for layers in sizes():
        shape = replace(Shape(), layers=layers)
        if peak(memory(shape, step)) > 0.95 * total:
            print(f"{layers} layers need {peak(memory(shape, step)) / GIB:.0f} GiB by the formula: they are not tried")
            break
        if time.monotonic() + 3 * took > end:
            print(f"{layers} layers are not tried: the time is up")
            break
        began = time.monotonic()
        try:
            largest = {"layers": float(layers), **measured(shape, step, "cuda")}
        except torch.OutOfMemoryError:
            print(f"{layers} layers: out of memory, where the formula says {peak(memory(shape, step)) / GIB:.0f} GiB")
            break
        finally:
            torch.cuda.empty_cache()
        took = time.monotonic() - began
        _show(layers, largest)
    record("gpt_oss", {"device": torch.cuda.get_device_name(0), **largest})


def _show(layers: int, figures: dict[str, float]) -> None:
    used = f"{figures['peak_gib']:.1f} GiB at most" if "peak_gib" in figures else "memory not measured"
    print(
        f"  {layers} layers, {figures['parameters']:,.0f} parameters: {used} (formula {figures['paper_gib']:.2f}), "
        f"{figures['sampled_tokens_per_second']:.0f} tokens/s sampled, "
        f"{figures['learned_tokens_per_second']:.0f} tokens/s learned; another pass: |ratio - 1| up to "
        f"{figures['drift_largest']:.2g}, {figures['drift_outside']:.1%} beyond 0.2, gap of probabilities "
        f"{figures['drift_gap']:.2g}"
    )
    if "bfloat16_largest" in figures:
        print(
            f"  a pass in bfloat16 beside one in float32: |ratio - 1| up to {figures['bfloat16_largest']:.2g}, "
            f"{figures['bfloat16_outside']:.1%} beyond 0.2, gap of probabilities {figures['bfloat16_gap']:.2g}"
        )


if __name__ == "__main__":
    main()
