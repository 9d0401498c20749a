"""Episodes to JSON and back. Each patch is stored once; only very long texts are cut, and say so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from regrade.datasets.episodes import Episode, EpisodeEnd, SeenTests, Step
from regrade.datasets.patches import Patch

LONGEST_TEXT = 100_000
"""Characters of an observation, an action or an argument. The environment's own observations are shorter."""
LONGEST_INTEGER = 2**63
DEEPEST = 20
"""Levels of lists and objects in an argument; deeper ones are stored as text."""


class _StoredStep(msgspec.Struct, omit_defaults=True):
    tool: str
    observation: str
    seconds: float | None = None
    arguments: dict[str, Any] = {}
    is_mistake: bool = False
    is_change: bool = False
    patch_digest: str = ""
    tests: SeenTests | None = None
    action: str = ""


class StoredEpisode(msgspec.Struct, omit_defaults=True):
    """An episode as its JSON object; `converted` reads one."""

    task_id: str
    instruction: str
    end: EpisodeEnd
    patch: str
    """Digest of the patch at the end, which is among `patches`."""
    steps: list[_StoredStep]
    patches: dict[str, str]
    """Digest -> text."""
    tokens: int = 0

    @classmethod
    def of(cls, episode: Episode) -> StoredEpisode:
        """The stored form; very long texts are cut."""
        patches = {**episode.patches, episode.patch.digest: episode.patch}
        return cls(
            task_id=episode.task_id,
            instruction=shortened(episode.instruction),
            end=episode.end,
            patch=episode.patch.digest,
            steps=[_stored(step) for step in episode.steps],
            patches={digest: patch.text for digest, patch in patches.items()},
            tokens=episode.tokens,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values

    def episode(self) -> Episode:
        """The episode. Raises KeyError if `patches` lacks the patch at the end."""
        patches = {digest: Patch(text) for digest, text in self.patches.items()}
        return Episode(
            task_id=self.task_id,
            instruction=self.instruction,
            steps=tuple(_restored(step) for step in self.steps),
            patch=patches[self.patch],
            end=self.end,
            tokens=self.tokens,
            patches=patches,
        )


def _stored(step: Step) -> _StoredStep:
    return _StoredStep(
        tool=step.tool,
        observation=shortened(step.observation),
        seconds=step.seconds if math.isfinite(step.seconds) else None,
        arguments={str(name): plain_argument(value) for name, value in step.arguments.items()},
        is_mistake=step.is_mistake,
        is_change=step.is_change,
        patch_digest=step.patch_digest,
        tests=step.tests,
        action=shortened(step.action),
    )


def _restored(step: _StoredStep) -> Step:
    return Step(
        tool=step.tool,
        arguments=step.arguments,
        observation=step.observation,
        seconds=math.nan if step.seconds is None else step.seconds,
        is_mistake=step.is_mistake,
        is_change=step.is_change,
        patch_digest=step.patch_digest,
        tests=step.tests,
        action=step.action,
    )


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """The start and the end of a text that is too long, with the number of characters cut between them."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters cut]\n{text[-half:]}"


def plain_argument(value: Any, depth: int = 0) -> Any:
    """An argument as JSON that every reader accepts: a model may write NaN, or an integer of a thousand digits. Very
    long texts are cut."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return shortened(value)
    if isinstance(value, int) and abs(value) < LONGEST_INTEGER:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth < DEEPEST and isinstance(value, Mapping):
        return {shortened(str(name)): plain_argument(each, depth + 1) for name, each in value.items()}
    if depth < DEEPEST and isinstance(value, list | tuple):
        return [plain_argument(each, depth + 1) for each in value]
    return shortened(_text(value))


def _text(value: Any) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python prints, or a list in itself
        return f"<{type(value).__name__}>"
