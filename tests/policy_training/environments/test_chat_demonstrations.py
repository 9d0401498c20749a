"""Demonstrations as chats: TRL's own trainer learns exactly the right calls of the assistant."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer
from trl.chat_template_utils import qwen3_chat_template

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.environments.demonstration_files import write_demonstrations
from regrade.policy_training.environments.demonstration_formats import ChatExpert, edit_calls
from regrade.policy_training.environments.demonstrations import Demonstration, DemonstrationSettings, Demonstrator
from regrade.policy_training.policies.models import LanguageModel

LIMITS = EpisodeLimits(turns=16, test_runs=4)
CALL = re.compile(r'<tool_call>\n\{"name": "(\w+)", "arguments": (\{.*?\})\}\n</tool_call>')


def test_trl_learns_every_right_call_once_and_no_mistake(
    language_model: LanguageModel, tasks: list[Task], scorer: Scorer, tmp_path: Path
) -> None:
    shares = DemonstrationSettings(second_mistake=1.0, look=1.0)
    demonstrator = Demonstrator(tasks, scorer, LIMITS, shares, form=ChatExpert)
    path = tmp_path / "chats.jsonl"
    made = write_demonstrations(demonstrator, path)
    assert (made.traces, made.with_mistakes, made.left_out) == (6, 2, [])

    tokenizer: PreTrainedTokenizerFast = copy.deepcopy(language_model.tokenizer)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = qwen3_chat_template
    dataset = SFTTrainer(
        language_model.model, processing_class=tokenizer,
        args=SFTConfig(
            output_dir=str(tmp_path), assistant_only_loss=True, max_length=None, report_to="none", use_cpu=True, bf16=False
        ),
        train_dataset=load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")),
    ).train_dataset  # fmt: skip

    learned: Counter[tuple[str, str]] = Counter()
    for ids, labels in zip(dataset["input_ids"], dataset["labels"], strict=True):
        text = "".join(
            tokenizer.decode([token]) if label != -100 else "\0" for token, label in zip(ids, labels, strict=True)
        )
        for part in filter(None, text.split("\0")):
            call = CALL.fullmatch(part.removeprefix("<think>\n\n</think>\n\n").removesuffix("<|im_end|>\n"))
            assert call is not None, part  # nothing but calls of the assistant, whole
            learned[call[1], json.dumps(json.loads(call[2]))] += 1
    wanted: Counter[tuple[str, str]] = Counter()
    mistakes = refused = 0
    for each in demonstrator.make():
        assert isinstance(each, Demonstration)
        vain = sum(step.is_mistake for step in each.episode.steps)
        assert len(each.rows) == 1 + each.mistakes + bool(vain)
        refused += vain
        for step, is_learned in zip(each.episode.steps, each.learned, strict=True):
            wanted[step.tool, json.dumps(step.arguments)] += is_learned
            mistakes += not is_learned
    assert refused >= 2
    assert mistakes == 4 + refused
    assert learned == +wanted


TEXTS = st.lists(st.sampled_from(["a", "b", "", "  a"]), max_size=7).map("\n".join)


@settings(max_examples=200, deadline=None)
@given(before=st.none() | TEXTS, after=st.none() | TEXTS)
def test_calls_of_edit_make_any_text_of_any_other(before: str | None, after: str | None) -> None:
    text = before
    for _, arguments in edit_calls("f", before, after) or ():
        if arguments.get("delete"):
            text = None
        elif "old" not in arguments:
            assert text is None
            text = arguments["new"]
        else:
            assert text is not None
            assert text.count(arguments["old"]) == 1
            text = text.replace(arguments["old"], arguments["new"])
    assert text == after or before == ""  # nothing in an empty file can be replaced


def test_edits_of_any_reference_are_calls_with_a_text_that_occurs_once(
    make_task: Callable[[str], Task], scorer: Scorer
) -> None:
    """Lines that occur twice, an insertion, a new file, and a deleted one."""
    task = make_task("second")
    before = {path: task.base.read(path) for path in ("library.py",)}
    base = task.base.with_files({"old.py": "x = 1\n"})
    text = before["library.py"].replace(
        "        return None\n    return items[2]", "        return None\n    one = 1\n    return items[one]"
    )
    text = text.replace("class Counter:\n", "class Counter:\n    # counts\n").replace(
        "self.value = start", "self.value = start + 0"
    )
    reference = Patch.between({**before, "old.py": "x = 1\n"}, {"library.py": text, "new.py": "y = 2\n"})
    (made,) = Demonstrator(
        [replace(task, base=base, reference=reference)],
        scorer,
        LIMITS,
        DemonstrationSettings(with_mistake=0, with_refusal=0),
        form=ChatExpert,
    ).make()
    assert isinstance(made, Demonstration), made
    edits = [step.arguments for step in made.episode.steps if step.tool == "edit"]
    assert len(edits) == 5
    assert {"path": "new.py", "new": "y = 2\n"} in edits
    assert {"path": "old.py", "delete": True} in edits
