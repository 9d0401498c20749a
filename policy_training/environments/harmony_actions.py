"""The environment's tools in harmony, token by token: a GPT-OSS model as an agent.

What the policy wrote stays as the tokens that it sampled, also where they are malformed: that is an action of its own,
which costs a turn. A chat template would write an episode anew, drop the thoughts before a final answer, and so let
the trainer learn other tokens than were sampled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from regrade.datasets.episodes import Episode, EpisodeEnd
from regrade.datasets.errors import UserError
from regrade.policy_training.environments.agent_tools import RepositoryEnvironment
from regrade.policy_training.environments.chat_loop import CALL_A_TOOL, MOST_SILENT, SYSTEM
from regrade.policy_training.environments.tool_calls import call_tool, read_arguments, tool_schemas
from regrade.policy_training.policies.harmony import Harmony, MalformedMessageError
from regrade.policy_training.policies.transcripts import TokenizedEpisode, Transcript, Turn


@dataclass
class HarmonyEpisode:
    """One episode of an environment, in tokens."""

    environment: RepositoryEnvironment
    harmony: Harmony
    silent: int = 0
    """Answers in a row without a call."""

    def act(self, tokens: Sequence[int], tokenizer: AbstractContextManager[Any]) -> list[int] | None:
        """Execute an action; a malformed one, or one that calls no tool, is a step as well.

        Args:
            tokenizer: held while the tokenizer is used.

        Returns:
            the tokens that follow it, or None if the episode is over.
        """
        session = self.environment.session
        if session.is_over():
            return None
        function, arguments, why = "", "", CALL_A_TOOL
        with tokenizer:
            try:
                _, function, arguments = self.harmony.read(tokens)[-1]
            except MalformedMessageError as error:
                why = str(error)
        self.silent = self.silent + 1 if why == CALL_A_TOOL and not function else 0
        if self.silent == MOST_SILENT:
            session.end = EpisodeEnd.ABANDONED
            return None
        observation = self._observation(function, arguments, why)
        if session.is_over():
            return None
        with tokenizer:
            if function:
                return self.harmony.result(function, observation, tokens)
            return self.harmony.told(observation, tokens)

    def _observation(self, function: str, arguments: str, why: str) -> str:
        session = self.environment.session
        if not function:
            return session.unreadable(why)
        before = len(session.steps)
        observation = call_tool(self.environment, function, arguments)
        if len(session.steps) > before:  # otherwise the time ran out just now
            session.steps[-1] = replace(session.steps[-1], action=f"{function} {arguments}")
        return observation

    def episode(self) -> Episode:
        """The record so far."""
        return self.environment.session.episode()

    def transcript(self) -> Transcript:
        """The calls so far, for readers."""
        session = self.environment.session
        turns = [Turn(step.action, step.observation) for step in session.steps]
        return Transcript(session.instruction, (*turns[:-1], *(Turn(turn.action) for turn in turns[-1:])))


def harmony_prompt(harmony: Harmony, instruction: str) -> list[int]:
    """The prompt of an episode."""
    return harmony.prompt(SYSTEM, instruction, tool_schemas())


def tokenized_calls(transcript: Transcript, harmony: Harmony) -> TokenizedEpisode:
    """The tokens of a transcript of calls, as `HarmonyEpisode` would have shown them to a policy that made them.

    Its prompt is the environment's instruction, and each action the name of a tool and its arguments in JSON.

    Raises:
        UserError: an action is no such call.
    """
    tokens: list[int] = []
    is_action: list[bool] = []
    for number, turn in enumerate(transcript.turns, 1):
        function, _, arguments = turn.action.partition(" ")
        values = read_arguments(arguments)
        if values is None:
            raise UserError(
                f"the action {turn.action[:60]!r} is no call of a tool, and the model answers in harmony: give traces "
                "of calls, or train another model"
            )
        action = harmony.call(function, values)
        tokens += action
        is_action += [turn.is_learned] * len(action)
        if number < len(transcript.turns):
            observation = harmony.result(function, turn.observation, action)
            tokens += observation
            is_action += [False] * len(observation)
    return TokenizedEpisode(tuple(harmony_prompt(harmony, transcript.prompt)), tuple(tokens), tuple(is_action))


def call_text(function: str, arguments: object) -> str:
    """A call of the scripted expert as the action of a transcript."""
    return f"{function} {json.dumps(arguments, ensure_ascii=False)}"
