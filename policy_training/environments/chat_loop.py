"""A plain loop that lets any chat model with tool calls work on a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from regrade.datasets.episodes import Episode, EpisodeEnd
from regrade.policy_training.environments.agent_tools import RepositoryEnvironment
from regrade.policy_training.environments.tool_calls import call_tool, tool_schemas

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


Complete = Callable[[Sequence[Message], list[dict[str, Any]]], ChatAnswer]
"""Messages and tool schemas -> the model's next message."""


def run_chat_episode(
    environment: RepositoryEnvironment, task_id: str, complete: Complete
) -> tuple[Episode, list[Message]]:
    """One episode of a chat model; returns its record and the whole chat.

    An answer without a tool call costs a turn, and the model is informed; a second one in a row ends the episode. An
    exception of `complete` is the caller's: the model's failure is no verdict on a patch.

    Raises:
        UserError: the environment has no such task.
    """
    messages: list[Message] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": environment.reset(task_id)},
    ]
    session, tools, silent = environment.session, tool_schemas(), 0
    while not session.is_over():
        message, tokens = complete(messages, tools)
        session.tokens += tokens
        messages.append(message)
        calls = message.get("tool_calls") or []
        silent = 0 if calls else silent + 1
        if silent == MOST_SILENT:
            session.end = EpisodeEnd.ABANDONED
        elif not calls:
            messages.append({"role": "user", "content": session.unreadable(CALL_A_TOOL)})
        messages.extend(_answered(environment, call) for call in calls)
    return session.episode(), messages


def _answered(environment: RepositoryEnvironment, call: Mapping[str, Any]) -> Message:
    """The result of one tool call, as the message that answers it."""
    function = call.get("function")
    if not isinstance(function, Mapping):
        content = environment.session.unreadable("the tool call names no function")
    else:
        content = call_tool(environment, str(function.get("name")), function.get("arguments") or {})
    return {"role": "tool", "tool_call_id": call.get("id", ""), "content": content}
