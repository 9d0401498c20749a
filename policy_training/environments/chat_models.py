"""Chat models that call tools, for `run_chat_episode`: behind an endpoint, or local by their chat template."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.errors import UserError
from regrade.policy_training.environments.chat_loop import ChatAnswer, Complete, Message
from regrade.policy_training.environments.tool_calls import read_arguments, tool_schemas
from regrade.policy_training.policies.endpoint_requests import Endpoint, ServerAnswer, connected
from regrade.policy_training.policies.endpoints import MAX_CHAT_TOKENS
from regrade.policy_training.policies.models import LanguageModel

INSTEAD = (
    "give a model that was trained to call tools, such as Qwen/Qwen3-4B-Instruct-2507, or, for a checkpoint of "
    "Regrade, `format=compact`"
)


def chat_request(
    endpoint: Endpoint, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], temperature: float, seed: int
) -> dict[str, Any]:
    """The body of a request for the next message of a chat."""
    return {
        "messages": list(messages),
        "tools": list(tools),
        "temperature": temperature,
        "max_tokens": endpoint.max_tokens or MAX_CHAT_TOKENS,
        "seed": seed,
    }


def chat_answer(completion: ServerAnswer) -> ChatAnswer:
    """The answer of a server; a chat that has become too long for the model ends the episode."""
    message: Message = {"role": "assistant", "content": completion.text}
    if completion.is_too_long:
        return ChatAnswer(message, end=EpisodeEnd.TOKENS)
    if completion.tool_calls:
        message["tool_calls"] = list(completion.tool_calls)
    return ChatAnswer(message, completion.tokens)


def check_is_chat(endpoint: Endpoint) -> None:
    """Raises UserError if the endpoint is not asked as a chat: only chats have tools."""
    if endpoint.api != "chat":
        raise UserError(f"the endpoint {endpoint.base_url!r} has the api {endpoint.api!r}: tools need the api 'chat'")


@contextmanager
def endpoint_chat(endpoint: Endpoint, *, temperature: float = 0.0, seed: int = 0) -> Iterator[Complete]:
    """A chat model behind an endpoint.

    The model raises LostAttemptError if the endpoint gives no answer after all retries, and UserError if it refuses.

    Raises:
        UserError: the key is missing, or the endpoint is no chat.
    """
    check_is_chat(endpoint)
    with asyncio.Runner() as runner:
        connection = connected(endpoint)
        open_connection = runner.run(connection.__aenter__())

        def complete(messages: Sequence[Message], tools: list[dict[str, Any]]) -> ChatAnswer:
            body = chat_request(endpoint, messages, tools, temperature, seed)
            return chat_answer(runner.run(open_connection.complete(body)))

        try:
            yield complete
        finally:
            runner.run(connection.__aexit__(None, None, None))


@dataclass
class LocalChat:
    """A local model that calls tools as its chat template says.

    Raises:
        UserError: the model has no chat template, or one that knows no tools.
    """

    language_model: LanguageModel
    temperature: float = 0.0
    max_tokens: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        check_calls_tools(self.language_model)
        self._parse = _parser(self.language_model.tokenizer)
        self._asked = 0

    def __call__(self, messages: Sequence[Message], tools: list[dict[str, Any]]) -> ChatAnswer:
        """The model's next message; a chat that has become too long for the model ends the episode."""
        import torch

        model, tokenizer = self.language_model.model, self.language_model.tokenizer
        prompt = _rendered(tokenizer, messages, tools)
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"].to(model.device)
        longest = getattr(model.config, "max_position_embeddings", None)
        room = self.max_tokens if longest is None else min(self.max_tokens, longest - ids.shape[1])
        if room <= 0:
            return ChatAnswer({"role": "assistant", "content": ""}, end=EpisodeEnd.TOKENS)
        sampling = {"do_sample": True, "temperature": self.temperature} if self.temperature else {"do_sample": False}
        torch.manual_seed(1000 * self.seed + self._asked)
        self._asked += 1
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=room,
                pad_token_id=tokenizer.pad_token_id,
                **sampling,
            )
        tokens = output[0, ids.shape[1] :].tolist()
        said = tokens[:-1] if tokens[-1:] == [tokenizer.eos_token_id] else tokens
        return ChatAnswer(self._parse(said, prompt), len(tokens))


def check_calls_tools(language_model: LanguageModel) -> None:
    """Raises UserError if the model's chat template does not render tools, their calls and their results."""
    name, tokenizer = language_model.name, language_model.tokenizer
    if not tokenizer.chat_template:
        raise UserError(f"the model {name!r} has no chat template: {INSTEAD}")
    call = {"id": "call-0", "type": "function", "function": {"name": "read_file", "arguments": {"path": "mark-a"}}}
    messages: list[Message] = [
        {"role": "user", "content": "mark-b"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call-0", "content": "mark-c"},
    ]
    try:
        text = _rendered(tokenizer, messages, tool_schemas())
    except Exception as error:  # of the template, in whatever way it refuses
        raise UserError(f"the chat template of the model {name!r} refuses tools ({error}): {INSTEAD}") from error
    if not all(mark in text for mark in ("mark-a", "mark-b", "mark-c", "list_files")):
        raise UserError(f"the chat template of the model {name!r} leaves out tools or their results: {INSTEAD}")


def _rendered(tokenizer: Any, messages: Sequence[Message], tools: list[dict[str, Any]]) -> str:
    """The chat as text. Templates expect the arguments of calls as objects."""
    chat = []
    for message in messages:
        calls = [
            {**call, "function": {**call["function"], "arguments": read_arguments(call["function"]["arguments"]) or {}}}
            for call in message.get("tool_calls", ())
        ]
        chat.append({**message, "tool_calls": calls} if calls else message)
    return str(tokenizer.apply_chat_template(chat, tools=tools, add_generation_prompt=True, tokenize=False))


def _parser(tokenizer: Any) -> Callable[[list[int], str], Message]:
    """The reader of the model's messages: that of its tokenizer, of a known chat template, or of the usual forms."""
    if getattr(tokenizer, "response_template", None) is None:
        from trl.chat_template_utils import add_response_schema

        try:
            add_response_schema(tokenizer)
        except ValueError:  # not a template that is known by heart
            return lambda tokens, _prompt: read_message(tokenizer.decode(tokens, skip_special_tokens=False), tokenizer)

    def parse(tokens: list[int], prompt: str) -> Message:
        try:
            return dict(tokenizer.parse_response(tokens, prefix=prompt, tools=tool_schemas()))
        except (ValueError, TypeError, AttributeError):  # a call that cannot be read is text
            return {"role": "assistant", "content": tokenizer.decode(tokens, skip_special_tokens=True)}

    return parse


TAG, END_TAG, LIST, CODE = "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>"


def read_message(text: str, tokenizer: Any = None) -> Message:
    """A message from the text of a model, with its tool calls in one of the usual forms.

    These are JSON objects with a name and arguments: each in <tool_call> tags, in a list after [TOOL_CALLS], or the
    whole message.
    """
    for token in getattr(tokenizer, "all_special_tokens", ()):
        if token not in (TAG, END_TAG, LIST, CODE):
            text = text.replace(token, "")
    found, content = _tagged(text)
    if not found and LIST in text:
        content, _, listed = text.partition(LIST)
        found = _json(listed)
    bare = text.strip().removeprefix(CODE).strip()
    if not found and bare.startswith("{"):
        found, content = [_json(bare)], ""
    found = found if isinstance(found, list) else []
    calls = [_call(value) for value in found if isinstance(value, Mapping) and isinstance(value.get("name"), str)]
    if not calls:
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": content.strip(), "tool_calls": calls}


def _tagged(text: str) -> tuple[Any, str]:
    """What stands in tags, and the text around it."""
    found, around, position = [], [], 0
    while (start := text.find(TAG, position)) >= 0 and (end := text.find(END_TAG, start)) >= 0:
        found.append(_json(text[start + len(TAG) : end]))
        around.append(text[position:start])
        position = end + len(END_TAG)
    return found, "".join([*around, text[position:]])


def _call(value: Mapping[str, Any]) -> dict[str, Any]:
    arguments = value.get("arguments", value.get("parameters", {}))
    return {"type": "function", "function": {"name": value["name"], "arguments": arguments}}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
