"""An episode as text, for language models: a prompt, then actions of the policy and observations in turn.

As tokens, each action ends with the model's end token, and each observation stands between two newlines:

    PROMPT action <end> \\n observation \\n action <end> \\n observation \\n action <end>

Only the tokens of actions, with their end tokens, are the policy's: they alone are learned, and sampled. The answer of
a policy that answers once is the transcript with one action.

An action can be a mistake that is not to be learned: a wrong edit that is tested and taken back. It stays in the text,
because what follows is an answer to it, but its tokens are masked as an observation's are. So a policy learns to see
that an edit broke something, and to take it back, and doesn't learn to make that edit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from regrade.datasets.episodes import Episode
from regrade.datasets.patches import Patch


class Turn(NamedTuple):
    """An action and what it showed; the last action of an episode shows nothing."""

    action: str
    observation: str = ""
    is_learned: bool = True
    """False: a mistake, which later actions take back."""


@dataclass(frozen=True)
class Transcript:
    """The text of one episode."""

    prompt: str
    turns: tuple[Turn, ...]

    @classmethod
    def of_answer(cls, prompt: str, answer: str) -> Transcript:
        """The transcript of a policy that answers once."""
        return cls(prompt, (Turn(answer),))

    @classmethod
    def of_episode(cls, prompt: str, episode: Episode, submit: str = "") -> Transcript:
        """What an agent did, to learn from: without its mistakes.

        A mistake is an action that the tools refused, or an edit of which nothing is left in the final patch, because
        it was taken back or overwritten. That it was taken back is learned. Of refused actions in a row only the first
        stays, and what follows the last change and the last test run is left out, as it led to nothing.

        Args:
            submit: the action that an episode which did not hand in should have ended with. Empty: it learns no end.
        """
        wrong = mistaken_steps(episode)
        useful = [n for n, step in enumerate(episode.steps) if step.is_change or step.tests or step.tool == "submit"]
        turns: list[Turn] = []
        for number, step in enumerate(episode.steps[: useful[-1] + 1 if useful else None]):
            if not (step.is_mistake and number and episode.steps[number - 1].is_mistake):
                turns.append(Turn(step.action.strip(), step.observation, number not in wrong))
        if submit and useful and episode.steps[useful[-1]].tool != "submit":
            turns.append(Turn(submit))
        return cls(prompt, (*turns[:-1], *(turn._replace(observation="") for turn in turns[-1:])))

    @property
    def completion(self) -> str:
        """All after the prompt, for readers."""
        return "\n".join(part for turn in self.turns for part in turn[:2] if part)


@dataclass(frozen=True)
class TokenizedEpisode:
    """The tokens of one episode. The three sequences after the prompt have equal lengths."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    """After the prompt: actions and observations."""
    is_action: tuple[bool, ...]
    """Is it the token of an action that is learned? Those of a sampled episode are all that the policy generated."""
    log_probs: tuple[float, ...] = ()
    """Of each token at its sampling temperature, 0 for tokens of observations; empty: not sampled."""


def mistaken_steps(episode: Episode) -> frozenset[int]:
    """The indexes of the steps that are mistakes."""
    final, before, wrong = _edited_lines(episode.patch), frozenset[str](), set()
    for number, step in enumerate(episode.steps):
        patch = episode.patches.get(step.patch_digest) if step.is_change else None
        after = before if patch is None else _edited_lines(patch)
        new = after - before
        added = {line for line in new if line.startswith("+")} or new
        if step.is_mistake or (step.tool != "undo" and added and added.isdisjoint(final)):
            wrong.add(number)
        before = after
    return frozenset(wrong)


def _edited_lines(patch: Patch) -> frozenset[str]:
    """The removed and added lines of a patch, with their signs."""
    return frozenset(
        line for line in patch.text.split("\n") if line.startswith(("+", "-")) and not line.startswith(("+++ ", "--- "))
    )


def framed(observation: str) -> str:
    """An observation as it stands between two actions."""
    return f"\n{observation}\n"


def tokenized(transcript: Transcript, encode: Callable[[str], Sequence[int]], end: int) -> TokenizedEpisode:
    """The tokens of a transcript.

    Args:
        end: the token that ends an action.
    """
    tokens: list[int] = []
    is_action: list[bool] = []
    for number, turn in enumerate(transcript.turns, 1):
        action = [*encode(turn.action), end]
        tokens += action
        is_action += [turn.is_learned] * len(action)
        if number < len(transcript.turns):
            observation = encode(framed(turn.observation))
            tokens += observation
            is_action += [False] * len(observation)
    return TokenizedEpisode(tuple(encode(transcript.prompt)), tuple(tokens), tuple(is_action))
