"""A tiny language model with random weights, and a tiny repository with two bugs: real parts, only small."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra `train`")

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl.chat_template_utils import gptoss_chat_template

from regrade.datasets.caches import default_cache
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Target, Task, Tree
from regrade.datasets.tasks import TestSuite as Suite
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.tool_calls import tool_schemas
from regrade.policy_training.policies.harmony import END_OF_TEXT, FORMAT_TOKENS
from regrade.policy_training.policies.models import LanguageModel, load_model
from regrade.policy_training.policies.sampling import stream
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.policy_training.trainers.sft import demonstrations, train_sft

LIBRARY = '''\
"""Small functions."""


def second(items):
    """Return the second item."""
    if len(items) < 2:
        return None
    return items[2]


class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, step):
        """Add a step
        and return the new value.
        """
        self.value -= step

        return self.value


def double(number):
    return number * 2
'''

TESTS = """\
from library import Counter, double, second


def test_second():
    assert second([1, 2, 3]) == 2


def test_second_of_too_few():
    assert second([1]) is None


def test_add():
    assert Counter(1).add(2) == 3


def test_add_nothing():
    assert Counter(4).add(0) == 4


def test_double():
    assert double(3) == 6
"""

FIXES = {"second": ("    return items[2]", "    return items[1]"), "add": ("self.value -= step", "self.value += step")}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Tensors here are so small that handing them to further threads costs more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, trained here: it reads any text and needs no file."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=["<pad>", "<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    bare.train_from_iterator([LIBRARY, TESTS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<end>", pad_token="<pad>")


def untrained(tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    return LanguageModel("tiny", LlamaForCausalLM(config).eval(), tokenizer)


def sample(
    model: Any, prompts: Sequence[Sequence[int]], temperatures: Sequence[float], **options: Any
) -> list[list[list[int]]]:
    """All of `stream`, in the order of the prompts: token ids as [prompt][completion][token]."""
    by_prompt = dict(stream(model, prompts, temperatures, **options))
    return [[completion.tokens for completion in by_prompt[index]] for index in range(len(prompts))]


@pytest.fixture
def language_model(tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    """A Llama of two layers with random weights, the same in every test."""
    return untrained(tokenizer)


@pytest.fixture(scope="session")
def harmony_tokenizer() -> PreTrainedTokenizerFast:
    """GPT-OSS's chat template and format tokens over a small vocabulary, trained here."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=[*FORMAT_TOKENS, END_OF_TEXT], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    described = [json.dumps(tool).replace('"', " ") for tool in tool_schemas()]
    bare.train_from_iterator([LIBRARY, TESTS, gptoss_chat_template, *described * 2], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|return|>", pad_token=END_OF_TEXT)
    tokenizer.chat_template = gptoss_chat_template
    return tokenizer


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two bugs, in `second` and in `Counter.add`. Nobody writes to it."""
    root = tmp_path_factory.mktemp("library")
    (root / "library.py").write_text(LIBRARY)
    (root / "test_library.py").write_text(TESTS)
    return root


@pytest.fixture(scope="session")
def make_task(library: Path) -> Callable[[str], Task]:
    """The task `second` or `add`, with its reference."""

    def make(name: str) -> Task:
        before, after = FIXES[name]
        first, last, function = {"second": (4, 8, "second"), "add": (15, 21, "Counter.add")}[name]
        failing = f"test_library.py::test_{name}"
        guarded = [f"test_library.py::test_{other}" for other in ("second_of_too_few", "add_nothing", "double")]
        return Task(
            id=name, repository="library", base=Tree(library), instruction=f"Mend `{function}`.",
            fail_to_pass=(failing,), pass_to_pass=tuple(guarded), suite=Suite(), limits=Limits(wall_seconds=30),
            target=Target("library.py", function, first, last), failure=f">>> {failing}\nAssertionError",
            reference=Patch.between({"library.py": LIBRARY}, {"library.py": LIBRARY.replace(before, after)}),
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def tasks(make_task: Callable[[str], Task]) -> list[Task]:
    return [make_task("second"), make_task("add")]


@pytest.fixture(scope="session")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evidence")


@pytest.fixture(scope="module")
def scorer(evidence: Path) -> Iterator[Scorer]:
    """Real execution; what one test had run is known to the next."""
    with Scorer(workers=1, cache=evidence) as scorer:
        yield scorer


@pytest.fixture(scope="session")
def undecided_folder(
    tokenizer: PreTrainedTokenizerFast, tasks: list[Task], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A saved policy: right about one time in six, and as often it changes nothing or breaks something."""
    folder = tmp_path_factory.mktemp("policies")
    right = demonstrations(tasks)
    others = {"second": ["4 return items[2]", "3 return 0"], "add": ["2 self.value -= step", "3 return 0"]}
    wrong = [
        Transcript.of_answer(known.prompt, answer)
        for task, known in zip(tasks, right, strict=True)
        for answer in others[task.id]
    ]
    policy, settings = untrained(tokenizer), SFTSettings(learning_rate=1e-2, batch_size=6)
    train_sft(policy, right + wrong, settings, out=folder / "trainer", budget=Budget(steps=60), seed=0)
    return policy.save(folder / "undecided")


@pytest.fixture
def undecided(undecided_folder: Path) -> LanguageModel:
    return load_model(str(undecided_folder), device="cpu")


@pytest.fixture(scope="session")
def packages_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all processes of the tests, empty but for the packages of the ready-made tasks: the usual cache has
    them for other tests anyway, and pip takes half a minute to fetch them."""
    base, sources = tmp_path_factory.getbasetemp(), default_cache() / "sources"
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "packages_cache"
    sources.mkdir(parents=True, exist_ok=True)
    cache.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        (cache / "sources").symlink_to(sources)
    return cache
