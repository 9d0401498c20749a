"""Trajectories of other programs, joined to the imported attempts by instance, run and sample."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrade.datasets.episodes import Episode
from regrade.datasets.graded.records import Findings
from regrade.datasets.trajectories.reading import trajectories_in
from regrade.datasets.trajectories.records import ForeignTrajectory
from regrade.evaluators.storage.episode_columns import columns_of_episode

Row = dict[str, Any]


@dataclass(frozen=True)
class AttemptSource:
    """Where the results of one run of a policy come from."""

    policy: str
    run: int
    source: Path
    model: str


def joined_episodes(
    origins: Sequence[AttemptSource], rows: Mapping[str, Sequence[Row]], findings: Findings
) -> Iterator[tuple[Row, Episode]]:
    """(row of an attempt, with the columns of its episode; the episode), one trajectory in memory at a time.

    Args:
        origins: of each policy and run.
        rows: of each policy.
    """
    by_task: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for policy, of_policy in rows.items():
        for row in of_policy:
            by_task[policy, row["task"]].append(row)
    joined: set[int] = set()
    for source in dict.fromkeys(origin.source for origin in origins):
        here = [origin for origin in origins if origin.source == source]
        for trajectory in trajectories_in(source, findings):
            candidates = [
                row
                for origin in _owners(here, trajectory)
                for row in by_task.get((origin.policy, trajectory.instance), ())
                if row["seed"] == origin.run and trajectory.sample in (None, row["sample"])
            ]
            if len(candidates) != 1:
                kind = "of none of the attempts" if not candidates else "of which it is unclear whose they are"
                findings.add(f"trajectories {kind}, left out", f"{trajectory.source}: {trajectory.instance}")
            elif id(candidates[0]) in joined:
                findings.add("doubled trajectories of one attempt, of which the first counts", trajectory.instance)
            else:
                joined.add(id(candidates[0]))
                candidates[0].update(columns_of_episode(trajectory.episode))
                yield candidates[0], trajectory.episode


def _owners(origins: Sequence[AttemptSource], trajectory: ForeignTrajectory) -> Sequence[AttemptSource]:
    """The policies whose trajectory it may be: of several, those of its model, if it names one."""
    if len(origins) < 2 or not trajectory.model:
        return origins
    return [each for each in origins if trajectory.model in (each.model, each.policy)] or origins
