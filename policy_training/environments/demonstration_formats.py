"""The actions of a scripted expert in two formats: one-line actions of small models, and tool calls of chat models.

A format turns a patch into edits, runs actions in an episode, and writes the finished episode as rows to learn from.
"""

from __future__ import annotations

import json
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from regrade.datasets.applying import changed_files
from regrade.datasets.episodes import Episode, Step
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Target, Task, Tree
from regrade.policy_training.environments.agent_tools import RepositoryEnvironment
from regrade.policy_training.environments.chat_loop import SYSTEM, Message
from regrade.policy_training.environments.compact_episode import SUBMIT, CompactEpisode
from regrade.policy_training.environments.harmony_actions import call_text
from regrade.policy_training.environments.tool_calls import call_tool, tool_schemas
from regrade.policy_training.policies.single_turn_prompt import prompt_of

Action = TypeVar("Action")
Look = Literal["", "find", "open"]
CONTEXT = 3
"""Lines that the expert reads around a change."""


class ToolCall(NamedTuple):
    """A call of one tool."""

    tool: str
    arguments: dict[str, Any]


class ExpertEpisode(ABC, Generic[Action]):
    """One episode of the expert in a format."""

    test: ClassVar[Any]
    undo: ClassVar[Any]
    submit: ClassVar[Any]

    def __init__(self, environment: RepositoryEnvironment, task: Task) -> None:
        self.environment = environment
        self.task = task

    @abstractmethod
    def reads(self, patch: Patch, look: Look) -> list[Action]:
        """What the expert reads before it edits."""

    @abstractmethod
    def edits(self, patch: Patch) -> list[Action] | None:
        """The edits that make a patch of the base, after `reads`; None: the format cannot express it."""

    @abstractmethod
    def repeats(self, patch: Patch, draw: random.Random, on_the_right_line: bool) -> list[Action]:
        """An edit, after `reads`, that changes nothing; none if that cannot be expressed.

        Args:
            on_the_right_line: does it write a line that the patch changes, or another one of the function? (A format
                whose edits are texts always writes the former.)
        """

    @abstractmethod
    def changes(self, action: Action) -> bool:
        """Is it an edit?"""

    @abstractmethod
    def act(self, action: Action) -> Step:
        """Execute an action."""

    @abstractmethod
    def rows(self, learned: Sequence[bool]) -> list[dict[str, Any]]:
        """The episode so far as rows of a file.

        Args:
            learned: of each action: is it to be learned?
        """

    def episode(self) -> Episode:
        """The record so far."""
        return self.environment.session.episode()


class CompactExpert(ExpertEpisode[str]):
    """The expert with one-line actions. It replaces lines one for one; other patches cannot be expressed."""

    test, undo, submit = "test", "undo", SUBMIT

    def __init__(self, environment: RepositoryEnvironment, task: Task) -> None:
        super().__init__(environment, task)
        self.compact = CompactEpisode(environment, task.id)
        self._shown = {} if task.target is None else {n: k for k, n in enumerate(prompt_of(task).lines, 1)}
        """Line of the file -> its number in the prompt."""
        self._open = task.target.file if task.target is not None else ""

    def reads(self, patch: Patch, look: Look) -> list[str]:
        changed = self._lines(patch)
        if not changed:
            return []
        path, line, _ = changed[0]
        target = self.task.target
        if look == "find" and target is not None:
            return [f"find {uses_of(target)}"]
        return [self._opens(path, line)] if look == "open" else []

    def edits(self, patch: Patch) -> list[str] | None:
        changed = self._lines(patch)
        if changed is None:
            return None
        actions = []
        for path, line, text in changed:
            if path != self._open or (self._shown and line not in self._shown):
                actions.append(self._opens(path, line))
            actions.append(f"{self._shown.get(line, line)} {text}")
        return actions

    def repeats(self, patch: Patch, draw: random.Random, on_the_right_line: bool) -> list[str]:
        changed = self._lines(patch)
        if not changed or changed[0][0] != self._open:
            return []
        texts = [text.strip() for text in self.task.base.read(self._open).split("\n")]
        right = [line for path, line, _ in changed if path == self._open and (not self._shown or line in self._shown)]
        other = [line for line in self._shown if line not in right and texts[line - 1]]
        lines = [line for line in (right if on_the_right_line or not other else other) if texts[line - 1]]
        if not lines:
            return []
        line = draw.choice(lines)
        return [f"{self._shown.get(line, line)} {texts[line - 1]}"]

    def changes(self, action: str) -> bool:
        return action[0].isdigit()

    def act(self, action: str) -> Step:
        self.compact.act(action)
        return self.environment.session.steps[-1]

    def rows(self, learned: Sequence[bool]) -> list[dict[str, Any]]:
        transcript = self.compact.transcript()
        turns = zip(transcript.turns, learned, strict=True)
        return [
            {
                "prompt": transcript.prompt,
                "turns": [turn._replace(is_learned=learns)._asdict() for turn, learns in turns],
            }
        ]

    def _opens(self, path: str, line: int) -> str:
        self._open, self._shown = path, {}
        return f"open {path} {max(1, line - CONTEXT)} {line + CONTEXT}"

    def _lines(self, patch: Patch) -> list[tuple[str, int, str]] | None:
        """(path, line, new text without indentation) of each replaced line; None if it is no replacement of lines one
        for one that keeps their indentation."""
        replaced = []
        for path, (before, after) in changed_texts(self.task.base, patch).items():
            if before is None or after is None or re.search(r"\s", path):
                return None
            old, new = before.split("\n"), after.split("\n")
            if len(old) != len(new):
                return None
            for number, (one, other) in enumerate(zip(old, new, strict=True), 1):
                text = other.lstrip()
                if one != other:
                    if not text or one[: len(one) - len(one.lstrip())] + text != other or text != text.rstrip():
                        return None
                    replaced.append((path, number, text))
        return replaced or None


class ChatExpert(ExpertEpisode[ToolCall]):
    """The expert with tool calls, as messages in OpenAI's form.

    Arguments are objects, as chat templates take them, not JSON text.
    """

    test, undo, submit = ToolCall("run_tests", {}), ToolCall("undo", {}), ToolCall("submit", {})

    def __init__(self, environment: RepositoryEnvironment, task: Task) -> None:
        super().__init__(environment, task)
        self.messages: list[Message] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": environment.reset(task.id)},
        ]

    def reads(self, patch: Patch, look: Look) -> list[ToolCall]:
        calls = []
        target = self.task.target
        if look and target is not None:
            calls.append(ToolCall("search", {"pattern": uses_of(target)}))
        for path, (before, after) in changed_texts(self.task.base, patch).items():
            if before is None:
                continue
            if target is not None and path == target.file:
                first, last = target.first_line, target.last_line
            else:
                blocks = changed_blocks(before.split("\n"), (after or "").split("\n"))
                first, last = max(1, blocks[0][0] + 1 - CONTEXT), blocks[-1][1] + CONTEXT
            calls.append(ToolCall("read_file", {"path": path, "first_line": first, "last_line": last}))
        return calls

    def edits(self, patch: Patch) -> list[ToolCall] | None:
        calls = []
        for path, (before, after) in changed_texts(self.task.base, patch).items():
            found = edit_calls(path, before, after)
            if found is None:
                return None
            calls += found
        return calls or None

    def repeats(self, patch: Patch, draw: random.Random, on_the_right_line: bool) -> list[ToolCall]:
        del draw, on_the_right_line  # the text of an edit is that of the reference
        for call in (self.edits(patch) or [])[:1]:
            if old := call.arguments.get("old"):
                return [ToolCall("edit", {**call.arguments, "new": old})]
        return []

    def changes(self, action: ToolCall) -> bool:
        return action.tool == "edit"

    def act(self, action: ToolCall) -> Step:
        identity = f"call_{len(self.environment.session.steps) + 1}"
        observation = call_tool(self.environment, action.tool, action.arguments)
        function = {"name": action.tool, "arguments": action.arguments}
        call = {"id": identity, "type": "function", "function": function}
        self.messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": identity, "name": action.tool, "content": observation},
        ]
        return self.environment.session.steps[-1]

    def rows(self, learned: Sequence[bool]) -> list[dict[str, Any]]:
        """Rows in TRL's form of prompt and completion, which express the mask: what must not be learned stands in a
        prompt. Each learned call is in the completion of exactly one row."""
        tools = json.dumps(tool_schemas(), ensure_ascii=False)
        starts = [0, *(number for number, is_learned in enumerate(learned, 1) if not is_learned)]
        rows = []
        for start, end in zip(starts, [*starts[1:], len(learned) + 1], strict=True):
            last = end - 1  # the first action that must not be learned
            if last > start:
                prompt, completion = self.messages[: 2 + 2 * start], self.messages[2 + 2 * start : 2 + 2 * last]
                rows.append({"prompt": prompt, "completion": completion[:-1], "tools": tools})
        return rows


class CallExpert(ChatExpert):
    """The expert with tool calls, as transcripts for models that learn by recorded tokens (`harmony_actions.py`)."""

    def rows(self, learned: Sequence[bool]) -> list[dict[str, Any]]:
        """One transcript: its prompt is the instruction, and each action the name of a tool and its arguments."""
        turns = [
            {"action": call_text(step.tool, step.arguments), "observation": step.observation, "is_learned": is_learned}
            for step, is_learned in zip(self.environment.session.steps, learned, strict=True)
        ]
        turns[-1]["observation"] = ""
        return [{"prompt": self.environment.session.instruction, "turns": turns}]


def edit_calls(path: str, before: str | None, after: str | None) -> list[ToolCall] | None:
    """The calls of `edit` that turn a file's text into another; None if there are none."""
    if before is None:
        return None if after is None else [ToolCall("edit", {"path": path, "new": after})]
    if after is None:
        return [ToolCall("edit", {"path": path, "delete": True})]
    old, new, calls = before.split("\n"), after.split("\n"), []
    for first, end, start, stop in reversed(
        changed_blocks(old, new)
    ):  # from the bottom, so that the numbers above hold
        lines = [*old[:end], *new[stop:]]  # what is below is changed already
        text, above, below = "\n".join(lines), first, end
        while True:  # more lines around, until the text is at one place and the lines that are left have a neighbour
            wanted = "\n".join(lines[above:below])
            put = [*lines[above:first], *new[start:stop], *lines[end:below]]
            if put and wanted and text.find(wanted) == text.rfind(wanted):
                break
            if (above, below) == (0, len(lines)):  # an edit between would have left nothing to replace: all at once
                return [ToolCall("edit", {"path": path, "old": before, "new": after})] if before else None
            above, below = max(0, above - 1), min(len(lines), below + 1)
        calls.append(ToolCall("edit", {"path": path, "old": wanted, "new": "\n".join(put)}))
    return calls


def uses_of(target: Target) -> str:
    """A regular expression that finds the definition and the calls of a function: what a change can break."""
    owner, _, name = target.function.rpartition(".")
    if name.startswith("__") and owner:  # called by the name of its class, if at all
        name = owner.rpartition(".")[2]
    return rf"\b{re.escape(name)}\("


def changed_texts(base: Tree, patch: Patch) -> dict[str, tuple[str | None, str | None]]:
    """Changed path -> its text before and after; empty if the patch does not apply."""
    try:
        changed = changed_files(base, patch)
    except PatchError:
        return {}
    return {path: (base.read_or_none(path), after) for path, after in changed.items()}


def changed_blocks(old: list[str], new: list[str]) -> list[tuple[int, int, int, int]]:
    """(first, end, first, end) of the lines that differ in both texts, counted from 0."""
    codes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [(i1, i2, j1, j2) for tag, i1, i2, j1, j2 in codes if tag != "equal"]


FORMATS: Mapping[str, type[ExpertEpisode[Any]]] = {"compact": CompactExpert, "chat": ChatExpert}
