"""A plain loop that lets any chat model with tool calls work on a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from regrade.datasets.episodes import Episode, EpisodeEnd, Step
from regrade.policy_training.environments.agent_tools import RepositoryEnvironment
from regrade.policy_training.environments.tool_calls import call_tool, read_arguments, tool_schemas

Message = dict[str, Any]
"""Of a chat, in OpenAI's form: `role`, `content`, and `tool_calls` or `tool_call_id`."""

SYSTEM = (
    "You fix bugs in a code repository with the given tools. Read before you edit, run the tests after you edit, take "
    "back what breaks a test that passed before, and call submit when you are done."
)
CALL_A_TOOL = "You called no tool. Go on with a tool, or call submit to hand in your changes."
MOST_SILENT = 2
"""Answers in a row without a call, after which the episode ends."""


class ChatAnswer(NamedTuple):
    """A model's answer."""

    message: Message
    tokens: int = 0
    """Generated."""
    end: EpisodeEnd | None = None
    """Why the model cannot go on, such as a full context; its tree so far is its answer. None: it can."""


Complete = Callable[[Sequence[Message], list[dict[str, Any]]], ChatAnswer]
"""Messages and tool schemas -> the model's next message."""


def run_chat_episode(
    environment: RepositoryEnvironment,
    task_id: str,
    complete: Complete,
    watch: Callable[[Step], None] | None = None,
) -> tuple[Episode, list[Message]]:
    """One episode of a chat model; returns its record and the whole chat.

    An answer without a tool call costs a turn, and the model is informed; a second one in a row ends the episode. An
    exception of `complete` is the caller's: the model's failure is no verdict on a patch.

    Args:
        watch: called with each step as it ends.

    Raises:
        UserError: the environment has no such task.
    """
    messages: list[Message] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": environment.reset(task_id)},
    ]
    session, tools, silent = environment.session, tool_schemas(), 0
    shown = 0

    def show() -> None:
        nonlocal shown
        for step in session.steps[shown:]:
            shown += 1
            if watch is not None:
                watch(step)

    while not session.is_over():
        message, tokens, session.end = complete(messages, tools)
        session.tokens += tokens
        calls = _calls(message)
        messages.append(_repeatable(message, calls, len(messages)))
        silent = 0 if calls else silent + 1
        if session.is_over():
            break
        if silent == MOST_SILENT:
            session.end = EpisodeEnd.ABANDONED
        elif not calls:
            messages.append({"role": "user", "content": session.unreadable(CALL_A_TOOL)})
        for call, repeated in zip(calls, messages[-1].get("tool_calls", ()), strict=False):
            content = _result(environment, call)
            messages.append({"role": "tool", "tool_call_id": repeated["id"], "content": content})
            show()
        show()
    return session.episode(), messages


def _calls(message: Message) -> list[Any]:
    calls = message.get("tool_calls")
    return list(calls) if isinstance(calls, list | tuple) else []


def _repeatable(message: Message, calls: Sequence[Any], number: int) -> Message:
    """The message as the model may be reminded of it: servers and chat templates refuse a call that is not well formed.

    Its calls are executed as they are, so that the model learns what is wrong with them.
    """
    said = {key: value for key, value in message.items() if key != "tool_calls"} | {"role": "assistant"}
    said.setdefault("content", "")
    if not calls:
        return said
    repeated = []
    for index, call in enumerate(calls):
        call = call if isinstance(call, Mapping) else {}
        function = call.get("function")
        function = function if isinstance(function, Mapping) else {}
        repeated.append(
            {
                "id": str(call.get("id") or f"call-{number}-{index}"),
                "type": "function",
                "function": {
                    "name": str(function.get("name") or "none"),
                    "arguments": json.dumps(read_arguments(function.get("arguments")) or {}),
                },
            }
        )
    return {**said, "tool_calls": repeated}


def _result(environment: RepositoryEnvironment, call: object) -> str:
    """Execute one tool call."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return environment.session.unreadable("the tool call names no function")
    return call_tool(environment, str(function.get("name")), function.get("arguments") or {})
