"""What a step of training takes beside other processes, by how many threads torch has and how they wait.

    python benchmarks/threads.py                    # some minutes on two cores, with a model of 25 million parameters
    python benchmarks/threads.py --model smollm2-135m

Each line is a process of its own, as OpenMP reads its variables once: SFT steps on random tokens, with the defaults of
torch (as many threads as cores, which spin while they wait), with threads that sleep while they wait, with one thread,
and as `regrade train` does: asleep, and no more threads than cores that are free. Alone, and beside one and two
processes that compute without a pause. The first step is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from _latest import record

from regrade.policy_training.policies.threads import NUMBER, WAITING

WAYS: Mapping[str, Mapping[str, str]] = {
    "defaults of torch": {},
    "asleep": {"OMP_WAIT_POLICY": "PASSIVE", "FOLLOW": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "asleep, on free cores": {**WAITING, "FOLLOW": "1"},
}
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))"
"""A competing process, which ends with the benchmark, however that ends."""
PROMPT_TOKENS, ANSWER_TOKENS, BATCH = 120, 12, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a policy's name or folder; default: random weights")
    parser.add_argument("--width", type=int, default=384, help="of the random model")
    parser.add_argument("--steps", type=int, default=12, help="steps per line, of which the median is printed")
    parser.add_argument("--competitors", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dry", action="store_true", help="do not record the figures")
    parser.add_argument("--step-times", action="store_true", help=argparse.SUPPRESS)  # of this script's own processes
    options = parser.parse_args()
    if options.step_times:
        print(json.dumps(step_times(options.model, options.width, options.steps)))
        return
    figures: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    print(f"{'seconds per step beside':26}" + "".join(f"{count:>8} busy" for count in options.competitors))
    for name, variables in WAYS.items():
        row = []
        for count in options.competitors:
            with competitors(count):
                row.append(measure(variables, sys.argv[1:]))
        print(f"{name:26}" + "".join(f"{seconds:13.3f}" for seconds in row), flush=True)
        figures[name] = dict(zip(map(str, options.competitors), row, strict=True))
    if not options.dry:
        record("threads", figures | {"model": options.model or f"random, width {options.width}"})


@contextmanager
def competitors(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(variables: Mapping[str, str], arguments: list[str]) -> float:
    """The median seconds of a step in a process with these variables."""
    unset = {name: text for name, text in os.environ.items() if name not in (*NUMBER, *WAITING, "GOMP_SPINCOUNT")}
    command = [sys.executable, __file__, *arguments, "--step-times"]
    done = subprocess.run(command, env=unset | dict(variables), stdout=subprocess.PIPE, text=True, check=True)
    times: list[float] = json.loads(done.stdout.splitlines()[-1])
    return statistics.median(times)


def step_times(model: str | None, width: int, steps: int) -> list[float]:
    """Seconds of each SFT step but the first, on the same data in every process."""
    import torch

    from regrade.policy_training.policies import threads
    from regrade.policy_training.policies.models import load_model
    from regrade.policy_training.policies.transcripts import Transcript
    from regrade.policy_training.trainers.callbacks import Budget
    from regrade.policy_training.trainers.settings import SFTSettings
    from regrade.policy_training.trainers.sft import train_sft

    if os.environ.get("FOLLOW") != "1":
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # as if the user had chosen
    threads.INTERVAL_SECONDS = 2.0  # this run takes seconds
    language_model = random_model(width) if model is None else load_model(model, to_train=True)
    words = [f"word{number % 37}" for number in range(PROMPT_TOKENS * 8)]
    lessons = [
        Transcript.of_answer(" ".join(words[8 * k : 8 * k + PROMPT_TOKENS // 4]), " ".join(words[k : k + 4]))
        for k in range(BATCH * 4)
    ]
    ends = [time.monotonic()]
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as scratch:
        train_sft(
            language_model,
            lessons,
            SFTSettings(batch_size=BATCH),
            out=Path(scratch),
            budget=Budget(steps=steps + 1),
            seed=0,
            log=lambda _step, _seconds, _numbers: ends.append(time.monotonic()),
        )
    return [after - before for before, after in pairwise(ends[1:])]


def random_model(width: int) -> Any:
    """The embedded model's architecture with fewer and random weights, and a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from regrade.policy_training.policies.models import LanguageModel

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE({letter: number for number, letter in enumerate(["<pad>", "<end>", *alphabet])}, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<end>", pad_token="<pad>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=12,
        num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    return LanguageModel("random", LlamaForCausalLM(config), tokenizer)


if __name__ == "__main__":
    main()
