"""The messages of a chat as steps: each call of a tool, or the commands in an answer's code blocks, and what followed.

An answer without either, or with several code blocks, is a step of its own, without a tool.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from regrade.datasets.episodes import Step
from regrade.datasets.trajectories.records import (
    arguments_of,
    count_of,
    foreign_step,
    mapping,
    objects,
    seconds_between,
    text_of,
    with_observation,
)

SHELL = "bash"
"""Tool of an agent that writes shell commands."""
BLOCK = re.compile(r"```(?:bash|sh|mswea_bash_command)[ \t]*\n(.*?)\n?```", re.DOTALL)
"""An answer must have exactly one, or nothing is executed."""


class ChatSteps(NamedTuple):
    """What a chat says."""

    instruction: str
    """The first message of the user before an answer."""
    steps: tuple[Step, ...]
    tokens: float
    """Generated, as far as the answers say."""


def chat_steps(messages: Iterable[Mapping[str, Any]]) -> ChatSteps:
    """The steps of a chat with roles `system`, `user`, `assistant`, `tool`."""
    instruction, tokens = "", 0.0
    steps: list[Step] = []
    waiting: list[tuple[str, int]] = []  # (id of the call, index of its step) without an observation
    asked: object = None
    for message in messages:
        role = message.get("role")
        if role == "assistant":
            calls = _calls(message)
            asked = _stamp(message)
            tokens += _tokens(message)
            waiting = [(identity, len(steps) + place) for place, (identity, _) in enumerate(calls)]
            steps += [step for _, step in calls]
        elif role in ("user", "tool", "exit"):
            text = text_of(message.get("content"))
            if not steps:
                instruction = instruction or (text if role == "user" else "")
                continue
            place = _place(message, waiting, len(steps) - 1)
            seconds = seconds_between(asked, _stamp(message)) if role == "tool" else math.nan
            steps[place] = with_observation(steps[place], text, seconds)
            asked = _stamp(message)
    return ChatSteps(instruction, tuple(steps), tokens)


def _place(message: Mapping[str, Any], waiting: list[tuple[str, int]], last: int) -> int:
    """Index of the step that a message answers: that of its call, else the first without an answer, else the last."""
    ids = message.get("tool_call_ids")
    names = [message.get("tool_call_id"), *(ids if isinstance(ids, list) else [])]
    found = next((pair for pair in waiting if pair[0] and pair[0] in names), waiting[0] if waiting else None)
    if found is None:
        return last
    waiting.remove(found)
    return found[1]


def _calls(message: Mapping[str, Any]) -> list[tuple[str, Step]]:
    """(id, step) of each call of an answer."""
    text = text_of(message.get("content"))
    called = objects(message.get("tool_calls"))
    if called:
        calls = [(str(call.get("id") or ""), mapping(call.get("function"))) for call in called]
        return [
            (name, foreign_step(str(call.get("name") or SHELL), arguments_of(call.get("arguments")), text))
            for name, call in calls
        ]
    actions = mapping(message.get("extra")).get("actions")
    commands = [
        action if isinstance(action, str) else text_of(mapping(action).get("command"))
        for action in (actions if isinstance(actions, list) else [])
    ]
    if not commands and isinstance(message.get("action"), str):  # SWE-agent
        commands = [str(message["action"])]
    if not commands:
        blocks = BLOCK.findall(text)
        if len(blocks) != 1:
            return [("", replace(foreign_step("", {}, text), is_mistake=True))]
        commands = [blocks[0].strip("\n")]
    return [("", foreign_step(SHELL, {"command": command}, text)) for command in commands]


def _stamp(message: Mapping[str, Any]) -> object:
    return message.get("timestamp") or mapping(message.get("extra")).get("timestamp")


def _tokens(message: Mapping[str, Any]) -> float:
    return count_of(
        mapping(mapping(mapping(message.get("extra")).get("response")).get("usage")).get("completion_tokens")
    )
