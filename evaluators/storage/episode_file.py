"""The episodes of agents, stored beside the rows of an evaluation: one JSON line an attempt.

    {"policy": ..., "task": ..., "temperature": ..., "sample": ..., "seed": ..., "episode": {...}}

A later line of the same attempt replaces an earlier one. The file may be large, so lines are read one at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from regrade.datasets.episode_json import StoredEpisode
from regrade.datasets.episodes import Episode
from regrade.datasets.errors import UserError
from regrade.datasets.json_structs import converted
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.rows import ATTEMPT, attempt

ADVICE = "delete that line: the report then shows the attempt without its steps"


class _EpisodeLine(msgspec.Struct):
    policy: str
    task: str
    temperature: float
    sample: int
    seed: int
    episode: Any


class _IndexedEpisode(_EpisodeLine):
    """A line without its episode, which need not be decoded."""

    episode: msgspec.Raw


_DECODER = msgspec.json.Decoder(_IndexedEpisode)


def episodes_path(rows: Path) -> Path:
    """Path of the episodes of a file of rows."""
    return rows.with_suffix(".episodes")


class EpisodeFile:
    """A file of episodes, by attempt. It need not exist: policies that answer once have no episodes."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            UserError: a line is not an episode of an attempt.
        """
        self.path = path
        self._places: dict[tuple[Any, ...], tuple[int, int]] = {}
        if not path.exists():
            return
        place = 0
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):  # else torn: its writer was killed, and the attempt is repeated
                        self._places[_key(path, number, line)] = (number, place)
                    place += len(line)
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror or error}") from error

    def __len__(self) -> int:
        return len(self._places)

    @property
    def attempts(self) -> tuple[tuple[Any, ...], ...]:
        """Of each episode: see `rows.attempt`."""
        return tuple(self._places)

    def __contains__(self, row: object) -> bool:
        return isinstance(row, Mapping) and attempt(row) in self._places

    def get(self, row: Mapping[str, Any]) -> Episode | None:
        """The episode of a row's attempt; None if it has none.

        Raises:
            UserError: it is damaged.
        """
        found = self._places.get(attempt(row))
        if found is None:
            return None
        number, place = found
        with self.path.open("rb") as file:
            file.seek(place)
            line = json.loads(file.readline())
        where = f"{self.path}, line {number}: not the episode of an attempt"
        stored = converted(line["episode"], StoredEpisode, where, ADVICE)
        try:
            return stored.episode()
        except KeyError as error:
            raise UserError(f"{where}: 'patches' lacks the patch at the end, {error}; {ADVICE}") from error

    def items(self) -> Iterator[tuple[tuple[Any, ...], Episode]]:
        """Each attempt with its episode, one in memory at a time."""
        for key in self._places:
            episode = self.get(dict(zip(ATTEMPT, key, strict=True)))
            if episode is not None:
                yield key, episode


def add_episodes(path: Path, episodes: Iterable[tuple[Mapping[str, Any], Episode]]) -> None:
    """Append (the columns of an attempt, its episode)."""
    lines = [
        {**dict(zip(ATTEMPT, attempt(row), strict=True)), "episode": StoredEpisode.of(episode).to_json()}
        for row, episode in episodes
    ]
    if lines:
        journal.append(path, lines)


def _key(path: Path, number: int, line: bytes) -> tuple[Any, ...]:
    found: _EpisodeLine
    try:
        try:
            found = _DECODER.decode(line)
        except msgspec.DecodeError:  # perhaps a lone surrogate from a program's output, which json accepts
            found = msgspec.convert(json.loads(line), _EpisodeLine)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {number}: not the episode of an attempt ({error}); {ADVICE}") from error
    return (found.policy, found.task, found.temperature, found.sample, found.seed)
