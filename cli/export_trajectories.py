"""`regrade export --format atif`: trajectories of a run, or of other programs, as ATIF 1.7."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from regrade.cli.console import one_line
from regrade.datasets.episodes import Episode
from regrade.datasets.errors import UserError
from regrade.datasets.plurals import plural


class _Exported(NamedTuple):
    """One trajectory, and what ATIF says of its agent."""

    name: str
    episode: Episode
    agent: str
    model: str


def export_trajectories(source: Path, out: Path) -> None:
    """Write one JSON file an attempt.

    Args:
        source: the folder of a run, or a file or a folder of trajectories.

    Raises:
        UserError: there is no trajectory.
    """
    from regrade.datasets.graded.records import Findings
    from regrade.datasets.trajectories.atif_writing import to_atif
    from regrade.evaluators.storage.journal import write_atomically

    findings = Findings()
    names: set[str] = set()
    for one in _of_run(source) if (source / "manifest.json").is_file() else _of_files(source, findings):
        name = next(each for each in _numbered(one.name) if each not in names)
        names.add(name)
        value = to_atif(one.episode, agent=one.agent, model=one.model)
        write_atomically(out / f"{name}.json", json.dumps(value, ensure_ascii=True, indent=1) + "\n")
    for line in findings.lines():
        typer.echo(f"note: {one_line(line)}", err=True)
    if not names:
        raise UserError(f"{source} contains no trajectory: give a run of agents, or trajectories of a known format")
    typer.echo(f"{out}: {len(names)} {plural(len(names), 'trajectory', 'trajectories')}")


def _of_files(source: Path, findings: object) -> Iterator[_Exported]:
    from regrade.datasets.graded.records import Findings
    from regrade.datasets.trajectories.reading import read_trajectories, trajectories_in

    assert isinstance(findings, Findings)
    found = read_trajectories(source) if source.is_file() else trajectories_in(source, findings)
    for one in found:
        yield _Exported(one.instance, one.episode, one.source, one.model)


def _of_run(folder: Path) -> Iterator[_Exported]:
    from regrade.evaluators.storage.episode_file import EpisodeFile, episodes_path
    from regrade.evaluators.storage.rows import ATTEMPT
    from regrade.evaluators.storage.run import Run

    run = Run.open(folder)
    for policy in run.manifest.policies:
        episodes = EpisodeFile(episodes_path(run.evaluation(policy)))
        for attempt in episodes.attempts:
            episode = episodes.get(dict(zip(ATTEMPT, attempt, strict=True)))
            if episode is not None:
                yield _Exported(f"{policy}-{episode.task_id}", episode, "regrade", policy)


def _numbered(name: str) -> Iterator[str]:
    """File names of an attempt: the second and further ones of a task are numbered."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-")[:150] or "trajectory"
    yield plain
    yield from (f"{plain}-{number}" for number in range(2, 1_000_000))
