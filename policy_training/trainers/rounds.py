"""What a round of expert iteration collected, on disk: a killed round goes on with its training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from regrade.datasets.json_structs import converted
from regrade.datasets.json_text import parse_json, read_text
from regrade.evaluators.storage.journal import write_atomically
from regrade.policy_training.environments.attempts import Attempt, WallSeconds
from regrade.policy_training.policies.sampling_times import SamplingTimes
from regrade.policy_training.policies.transcripts import Transcript, Turn

ROUND_FILE = "round.json"


@dataclass(frozen=True)
class Round:
    """The result of one round."""

    attempts: list[Attempt]
    """Empty if a killed process made them: `verified` and `figures` are what it left of them."""
    verified: list[Transcript]
    """The new verified answers."""
    spent: WallSeconds
    sampling: SamplingTimes | None = None
    """Of an agent: where the time of sampling went."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """`rates` and `episode_rates` of the attempts, and what the components of the reward chose: `numbers_of_round`."""


class _VerifiedTranscript(msgspec.Struct):
    prompt: str
    turns: list[tuple[str, str, bool]]


class _StoredSeconds(msgspec.Struct):
    generation: float
    execution: float


class _StoredTimes(msgspec.Struct):
    seconds: float
    waited_seconds: float
    reply_seconds: float
    replies: int
    action_tokens: int
    shown_tokens: int


class _StoredRound(msgspec.Struct):
    verified: list[_VerifiedTranscript]
    spent: _StoredSeconds
    sampling: _StoredTimes | None
    figures: dict[str, float]


def write_round(folder: Path, done: Round) -> None:
    """Write all but the attempts."""
    values = {
        "verified": [
            {"prompt": trace.prompt, "turns": [list(turn) for turn in trace.turns]} for trace in done.verified
        ],
        "spent": asdict(done.spent),
        "sampling": None if done.sampling is None else asdict(done.sampling),
        "figures": dict(done.figures),
    }
    write_atomically(folder / ROUND_FILE, json.dumps(values))


def read_round(folder: Path) -> Round | None:
    """The round whose attempts were collected there, or None.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / ROUND_FILE
    if not path.is_file():
        return None
    stored = converted(parse_json(read_text(path), str(path)), _StoredRound, str(path), "delete it to sample again")
    return Round(
        [],
        [Transcript(trace.prompt, tuple(Turn(*turn) for turn in trace.turns)) for trace in stored.verified],
        WallSeconds(stored.spent.generation, stored.spent.execution),
        None if stored.sampling is None else SamplingTimes(**msgspec.structs.asdict(stored.sampling)),
        stored.figures,
    )
