"""The cells of a study: one trained and judged policy each, what it starts from, and how far it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

from regrade.datasets.errors import UserError
from regrade.evaluators.storage.manifest import PolicyRole
from regrade.evaluators.storage.run import Run
from regrade.policy_training.study.settings import StudySettings

Training = Literal["sft", "rl", "control"]
ROLES: Mapping[Training, tuple[PolicyRole, str]] = {
    "sft": ("baseline", "SFT"),
    "control": ("control", "SFT given equal time"),
    "rl": ("candidate", "SFT + expert iteration + GRPO"),
}
FORMS = {False: "one turn", True: "agent"}
JUDGED = "judge"
"""The last phase of each cell."""


@dataclass(frozen=True)
class Cell:
    """One policy of the grid."""

    training: Training
    """SFT; reinforcement learning from there; or SFT continued for the wall time of that."""
    demonstrations: int
    tests_only: int
    """Of reinforcement learning, or of that whose wall time is given; 0 for SFT."""
    seed: int
    is_agent: bool = False

    @property
    def name(self) -> str:
        """Such as `agent-rl-d32-n546-s0`: the name of its folder."""
        tested = f"-n{self.tests_only}" if self.tests_only else ""
        return f"{'agent-' * self.is_agent}{self.training}-d{self.demonstrations}{tested}-s{self.seed}"

    @property
    def start(self) -> Cell | None:
        """The cell whose weights it starts from: SFT; that of an agent starts from that of one turn."""
        if self.training == "sft" and not self.is_agent:
            return None
        return Cell("sft", self.demonstrations, 0, self.seed, is_agent=self.is_agent and self.training != "sft")

    @property
    def timed_by(self) -> Cell | None:
        """The cell whose wall time it is given."""
        return replace(self, training="rl") if self.training == "control" else None

    @property
    def needs(self) -> tuple[Cell, ...]:
        """All cells before it."""
        direct = [cell for cell in (self.start, self.timed_by) if cell is not None]
        return tuple(dict.fromkeys([*direct, *(cell for one in direct for cell in one.needs)]))


def grid(settings: StudySettings) -> list[Cell]:
    """All cells, each after those that it needs: first the curve over demonstrations, then that over tested tasks."""
    most = max(settings.tests_only)
    axes = [(count, most) for count in settings.demonstrations]
    axes += [(settings.few, count) for count in settings.tests_only if count != most]
    cells = [
        Cell(training, demonstrations, 0 if training == "sft" else tests_only, seed, is_agent=is_agent)
        for seed in settings.seeds
        for demonstrations, tests_only in axes
        for is_agent in settings.agents
        for training in get_args(Training)
    ]
    return list(dict.fromkeys(one for cell in cells for one in (*reversed(cell.needs), cell)))


def chosen(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The cells whose names match a pattern, such as `rl-d32-*`, and those that they need, in the order of the grid.

    Raises:
        UserError: a pattern matches no cell.
    """
    if not patterns:
        return list(cells)
    wanted: set[Cell] = set()
    for pattern in patterns:
        found = [cell for cell in cells if fnmatchcase(cell.name, pattern)]
        if not found:
            raise UserError(f"no cell of this study matches {pattern!r}: the cells are {_listed(cells)}")
        wanted.update(found, *(cell.needs for cell in found))
    return [cell for cell in cells if cell in wanted]


def _listed(cells: Sequence[Cell]) -> str:
    names = [cell.name for cell in cells]
    return ", ".join([*names[:6], *(["…"] if len(names) > 6 else [])])


def cell_folder(study: Path, cell: Cell) -> Path:
    """The run of a cell: `regrade report` and `regrade compare` read it as any other run."""
    return study / "cells" / cell.name


@dataclass(frozen=True)
class CellState:
    """How far a cell is."""

    cell: Cell
    is_done: bool
    seconds: float
    """Wall time so far."""
    left: float | None
    """Estimate of the seconds that it still takes; None: no similar cell is finished."""


def cell_states(study: Path, cells: Sequence[Cell]) -> list[CellState]:
    """The state of each cell. A cell is estimated to take as long as the most similar finished one."""
    spent: dict[Cell, float] = {}
    done: dict[Cell, float] = {}
    for cell in cells:
        folder = cell_folder(study, cell)
        if (folder / "manifest.json").exists():
            run = Run.open(folder)
            spent[cell] = sum(phase.seconds for phase in run.manifest.phases.values())
            if run.finished(JUDGED):
                done[cell] = spent[cell]
    return [_state(cell, spent.get(cell, 0.0), done) for cell in cells]


def _state(cell: Cell, seconds: float, done: Mapping[Cell, float]) -> CellState:
    if cell in done:
        return CellState(cell, is_done=True, seconds=seconds, left=0.0)
    similar = min(_similar(cell, done), key=lambda other: _distance(cell, other), default=None)
    left = None if similar is None else max(0.0, done[similar] - seconds)
    return CellState(cell, is_done=False, seconds=seconds, left=left)


def _similar(cell: Cell, done: Mapping[Cell, float]) -> Iterator[Cell]:
    """The finished cells of its kind; a control takes as long as the reinforcement learning beside it."""
    is_sft = cell.training == "sft"
    yield from (x for x in done if (x.training == "sft") == is_sft and x.is_agent == cell.is_agent)


def _distance(cell: Cell, other: Cell) -> float:
    ratios = [(cell.demonstrations, other.demonstrations), (cell.tests_only, other.tests_only)]
    return sum(abs(math.log(one / another)) for one, another in ratios if one and another)
