"""Local models as chat models: their templates, how their tool calls are read, and models that cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast
from trl.chat_template_utils import qwen3_chat_template

from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_tools import EpisodeLimits, RepositoryEnvironment
from regrade.policy_training.environments.chat_loop import run_chat_episode
from regrade.policy_training.environments.chat_models import LocalChat, read_message
from regrade.policy_training.policies.models import LanguageModel

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
OWN = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<end>\n{% endfor %}"
    "assistant: "
)
"""A template that nobody knows by heart."""


@pytest.fixture
def with_template(language_model: LanguageModel, tokenizer: PreTrainedTokenizerFast) -> Callable[..., LanguageModel]:
    """The tiny random model with a chat template, and with words put into its mouth."""

    def make(template: str | None, *words: str, context: int = 8192) -> LanguageModel:
        own = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer, eos_token="<end>", pad_token="<pad>"
        )
        own.chat_template = template
        left = iter(words)
        language_model.model.config.max_position_embeddings = context

        def generate(input_ids: torch.Tensor, max_new_tokens: int, **_: Any) -> torch.Tensor:
            said = own(next(left), add_special_tokens=False)["input_ids"][:max_new_tokens]
            return torch.cat([input_ids, torch.tensor([[*said, own.eos_token_id]])], dim=1)

        if words:
            language_model.model.generate = generate
        return LanguageModel("tiny", language_model.model, own)

    return make


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "has no chat template"),
        (PLAIN, "leaves out tools or their results"),
        ("{{ raise_exception('no tools here') }}", "refuses tools .no tools here."),
        ("{{ messages[0].content", "refuses tools"),
    ],
)
def test_a_model_that_cannot_call_tools_says_what_to_use_instead(
    with_template: Callable[..., LanguageModel], template: str | None, words: str
) -> None:
    with pytest.raises(UserError, match=f"{words}.*Qwen3.*`format=compact`"):
        LocalChat(with_template(template))


@pytest.mark.parametrize("template", [qwen3_chat_template, OWN], ids=["known", "own"])
def test_a_local_model_calls_tools_by_its_template(
    with_template: Callable[..., LanguageModel], make_task: Callable[[str], Task], scorer: Scorer, template: str
) -> None:
    model = with_template(
        template,
        'I look.\n<tool_call>\n{"name": "search", "arguments": {"pattern": "items"}}\n</tool_call>',
        '<tool_call>\n{"name": "edit", "arguments": {"path": "library.py", "old": "items[2]", "new": "items[1]"}}\n'
        '</tool_call>\n<tool_call>\n{"name": "run_tests", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "submit", "arguments": {broken}\n</tool_call>',
        '<tool_call>\n{"name": "submit", "arguments": {}}\n</tool_call>',
    )
    task = make_task("second")
    episode, chat = run_chat_episode(RepositoryEnvironment({task.id: task}, scorer), task.id, LocalChat(model))
    assert [step.tool for step in episode.steps] == ["search", "edit", "run_tests", "", "submit"]
    assert episode.end is EpisodeEnd.SUBMITTED
    assert episode.steps[2].tests is not None
    assert episode.steps[2].tests.is_green
    assert chat[2]["content"].strip() == "I look."
    assert episode.tokens > 50


def test_a_random_model_is_sampled_until_its_context_is_full(
    with_template: Callable[..., LanguageModel], make_task: Callable[[str], Task], scorer: Scorer
) -> None:
    """Nothing is put into its mouth: it babbles, which are mistakes; then there is no room."""
    task, model = make_task("second"), with_template(OWN)
    environment = RepositoryEnvironment({task.id: task}, scorer, EpisodeLimits(turns=5))
    episode, _ = run_chat_episode(environment, task.id, LocalChat(model, temperature=1.0, max_tokens=8))
    assert episode.end is EpisodeEnd.ABANDONED
    assert all(step.is_mistake for step in episode.steps)
    full = with_template(OWN, context=100)
    episode, _ = run_chat_episode(environment, task.id, LocalChat(full))
    assert (episode.end, episode.steps) == (EpisodeEnd.TOKENS, ())


CALL = {"type": "function", "function": {"name": "edit", "arguments": {"path": "a"}}}


@pytest.mark.parametrize(
    ("text", "calls", "content"),
    [
        ('x <tool_call>{"name": "edit", "arguments": {"path": "a"}}</tool_call>', [CALL], "x"),
        ('[TOOL_CALLS][{"name": "edit", "arguments": {"path": "a"}}]', [CALL], ""),
        ('{"name": "edit", "parameters": {"path": "a"}}', [CALL], ""),
        ('<|python_tag|>{"name": "edit", "parameters": {"path": "a"}}', [CALL], ""),
        ('<tool_call>{"name": 3}</tool_call>', None, '<tool_call>{"name": 3}</tool_call>'),
        ('{"path": "a"}', None, '{"path": "a"}'),
        ("<tool_call>{</tool_call>", None, "<tool_call>{</tool_call>"),
        ("[TOOL_CALLS]{}", None, "[TOOL_CALLS]{}"),
    ],
)
def test_the_usual_forms_of_tool_calls_are_read(text: str, calls: list[Any] | None, content: str) -> None:
    message = read_message(text)
    assert (message.get("tool_calls"), message["content"]) == (calls, content)


def test_a_flood_of_half_calls_is_read_in_no_time() -> None:
    assert "tool_calls" not in read_message("<tool_call>{" * 20_000)
    assert "tool_calls" not in read_message("[TOOL_CALLS][" + "[" * 100_000)
    assert len(read_message('<tool_call>{"name": "diff"}</tool_call>' * 5000)["tool_calls"]) == 5000
