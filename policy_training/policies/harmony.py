"""Harmony, the chat format of GPT-OSS, in tokens: what an agent is shown and says is never encoded twice.

    <|start|>ROLE HEADER<|message|>text<|end|>          a message; a call ends with <|call|>, an answer with <|return|>
    <|start|>assistant to=functions.edit<|channel|>commentary <|constrain|>json<|message|>{"path": ...}<|call|>
    <|start|>functions.edit to=assistant<|channel|>commentary<|message|>edited ...<|end|>

A policy goes on after `<|start|>assistant`, and may think first in a message of the channel `analysis`. The recipient
of a call stands before the channel or after it. Only this module writes format tokens: text from a repository or from
a tool that looks like one (`<|call|>`) is encoded as plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from regrade.datasets.errors import UserError

START, MESSAGE, CHANNEL, CONSTRAIN = "<|start|>", "<|message|>", "<|channel|>", "<|constrain|>"
END, CALL, RETURN = "<|end|>", "<|call|>", "<|return|>"
END_OF_TEXT = "<|endoftext|>"
FORMAT_TOKENS = (START, MESSAGE, CHANNEL, CONSTRAIN, END, CALL, RETURN)
ENDS = (END, CALL, RETURN)
FUNCTIONS = "functions."
DATE = "2025-08-05"
"""In the prompt, so that an episode depends on no calendar."""
_HEADER = re.compile(
    r"(?: to=(?P<before>\S+))?<\|channel\|>(?P<channel>\w+)(?: to=(?P<after>\S+?))?(?: ?<\|constrain\|>\w+| \w+)?\s*"
)
_CHANNELS = ("analysis", "commentary", "final")
_NAME = re.compile(r"\w{1,64}")
_MARK = "\0the text of the user\0"


class HarmonyMessage(NamedTuple):
    """A message of the policy."""

    channel: str
    """`analysis` (its thoughts), `commentary` or `final`."""
    function: str
    """That it calls; empty: it calls none."""
    text: str


class MalformedMessageError(RuntimeError):
    """What a policy wrote is no sequence of messages. The text says why, for the policy to read."""


class Harmony:
    """The format with a tokenizer of GPT-OSS."""

    def __init__(self, tokenizer: Any) -> None:
        """
        Raises:
            UserError: the tokenizer lacks a token of the format.
        """
        self.tokenizer = tokenizer
        self._ids = {name: tokenizer.convert_tokens_to_ids(name) for name in FORMAT_TOKENS}
        missing = [name for name, token in self._ids.items() if token in (None, tokenizer.unk_token_id)]
        if missing:
            raise UserError(f"the tokenizer has no token {', '.join(missing)}: harmony needs that of a GPT-OSS model")
        self._names = {token: name for name, token in self._ids.items()}
        end_of_text = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
        self.stop_ids = [self._ids[RETURN], self._ids[CALL]]
        """Tokens that end an action."""
        if end_of_text not in (None, tokenizer.unk_token_id):
            self.stop_ids.append(end_of_text)
            self._names[end_of_text] = END_OF_TEXT

    @classmethod
    def of(cls, tokenizer: Any) -> Harmony | None:
        """None: the model of this tokenizer speaks another format."""
        vocabulary = tokenizer.get_added_vocab()
        return cls(tokenizer) if all(name in vocabulary for name in FORMAT_TOKENS) else None

    def plain(self, text: str) -> list[int]:
        """The tokens of a text, none of which is one of the format."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _formatted(self, *parts: str) -> list[int]:
        """Names of format tokens stand for these, and all else is plain text."""
        return [token for part in parts for token in ([self._ids[part]] if part in self._ids else self.plain(part))]

    @cached_property
    def opening(self) -> list[int]:
        """After which the policy goes on."""
        return self._formatted(START, "assistant")

    def prompt(self, instructions: str, user: str, tools: Sequence[Mapping[str, Any]]) -> list[int]:
        """The beginning of an episode, by the model's chat template, or that of GPT-OSS.

        Args:
            instructions: our own words, to the developer's role.
            user: the task; what looks like a format token in it is plain text.

        Raises:
            UserError: the chat template leaves the text out.
        """
        from trl.chat_template_utils import gptoss_chat_template

        text = self.tokenizer.apply_chat_template(
            [{"role": "system", "content": instructions}, {"role": "user", "content": _MARK}],
            tools=[dict(tool) for tool in tools],
            chat_template=self.tokenizer.chat_template or gptoss_chat_template,
            add_generation_prompt=True,
            tokenize=False,
        )
        text = re.sub(r"(?<=Current date: )\d{4}-\d\d-\d\d", DATE, text)
        before, mark, after = text.partition(_MARK)
        if not mark:
            raise UserError("the chat template leaves out the message of the user: harmony needs that of GPT-OSS")
        return [*self._parsed(before), *self.plain(user), *self._parsed(after)]

    def _parsed(self, text: str) -> list[int]:
        """The tokens of our own text, in which names of format tokens stand for these."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def call(self, function: str, arguments: Mapping[str, Any]) -> list[int]:
        """The action that calls a tool."""
        header = (f" to={FUNCTIONS}{function}", CHANNEL, "commentary ", CONSTRAIN, "json", MESSAGE)
        return self._formatted(*header, json.dumps(dict(arguments), ensure_ascii=False), CALL)

    def result(self, function: str, text: str, action: Sequence[int]) -> list[int]:
        """What follows an action that called a tool: the tool's answer, and the opening of the next action.

        Args:
            action: its tokens.
        """
        if not _NAME.fullmatch(function):  # it would break the header
            return self.told(text, action)
        header = (START, f"{FUNCTIONS}{function} to=assistant", CHANNEL, "commentary", MESSAGE)
        return [*self._closing(action), *self._formatted(*header, text, END), *self.opening]

    def told(self, text: str, action: Sequence[int]) -> list[int]:
        """What follows any other action: a message of the user, and the opening of the next action."""
        return [*self._closing(action), *self._formatted(START, "user", MESSAGE, text, END), *self.opening]

    def _closing(self, action: Sequence[int]) -> list[int]:
        """An action that was cut gets an end."""
        is_closed = bool(action) and self._names.get(action[-1]) in (*ENDS, END_OF_TEXT)
        return [] if is_closed else [self._ids[END]]

    def read(self, action: Sequence[int]) -> list[HarmonyMessage]:
        """The messages of an action; at most the last one calls a tool.

        Raises:
            MalformedMessageError: the tokens are no messages.
        """
        messages = []
        for number, (header, text, end) in enumerate(self._split(action)):
            messages.append(_message(header if number == 0 else _after_role(header), text, end))
        return messages

    def _split(self, action: Sequence[int]) -> Iterator[tuple[str, str, str]]:
        """(header, text, end token) of each message; the first header lacks its role, which was the opening."""
        header, text, in_text, is_open = "", list[int](), False, True
        for token in action:
            name = self._names.get(token, "")
            if not in_text:
                if name == START and not is_open:
                    is_open = True
                elif name == MESSAGE and is_open:
                    in_text = True
                elif name in (CHANNEL, CONSTRAIN) and is_open:
                    header += name
                elif not name and is_open:
                    header += self.tokenizer.decode([token])
                else:
                    raise MalformedMessageError(f"{name or 'text'} stands where a message must begin: {_shown(header)}")
            elif name in ENDS:
                yield header, str(self.tokenizer.decode(text)), name
                header, text, in_text, is_open = "", [], False, False
            elif name:
                raise MalformedMessageError(f"{name} stands in the text of a message: it must end with {END} or {CALL}")
            else:
                text.append(token)
        if in_text or header or is_open:
            what = "the text" if in_text else "the header"
            raise MalformedMessageError(f"{what} of a message does not end: finish each with {END} or {CALL}")


def _after_role(header: str) -> str:
    if not header.startswith("assistant"):
        raise MalformedMessageError(f"a message begins as another role: {_shown(header)}")
    return header.removeprefix("assistant")


def _message(header: str, text: str, end: str) -> HarmonyMessage:
    match = _HEADER.fullmatch(header)
    if match is None or match["channel"] not in _CHANNELS or (match["before"] and match["after"]):
        raise MalformedMessageError(
            f"the header {_shown(header)} is malformed: write to=functions.NAME{CHANNEL}commentary {CONSTRAIN}json"
        )
    recipient = match["before"] or match["after"] or ""
    if recipient and not recipient.startswith(FUNCTIONS):
        raise MalformedMessageError(f"there is no recipient {recipient[:100]!r}: call to=functions.NAME")
    if bool(recipient) != (end == CALL):
        raise MalformedMessageError(
            f"a call ends with {CALL}" if recipient else f"{CALL} ends a message that calls no function"
        )
    return HarmonyMessage(match["channel"], recipient.removeprefix(FUNCTIONS), text)


def _shown(header: str) -> str:
    return repr(header[:100])
