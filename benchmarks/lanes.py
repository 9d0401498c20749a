"""What the phases of a run of the main job would take side by side: their own times, in the order of `PARTS`.

    python benchmarks/lanes.py runs/demo
    python benchmarks/lanes.py runs/demo --share 0.6 --assume grpo=600    # of a run that is under way

It computes, and runs nothing. The times must be of a run whose phases had one core each, as with `--jobs 1`, or else
the machine's share of a core (`--share`). Which process takes what, and when, is decided as in `sharing.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.evaluators.storage.run import Run
from regrade.policy_training.demo.pipeline import PARTS, DemoPart
from regrade.policy_training.recipe.phases import RL_PHASES
from regrade.reports.number_format import duration

FIRST = "prepare"
CONTROL = "control"


def schedule(seconds: Mapping[str, float], lanes: int) -> list[tuple[int, DemoPart, float, float]]:
    """(lane, part, start, end in seconds) of each part, in the order of the starts."""
    length = {part.name: sum(seconds[phase] for phase in part.phases) for part in PARTS}
    length[CONTROL] = sum(seconds[phase] for phase in RL_PHASES)
    free = [seconds[FIRST]] * lanes
    ends: dict[str, float] = {}  # phase -> end
    placed: list[tuple[int, DemoPart, float, float]] = []
    left = list(PARTS)

    def ready(part: DemoPart) -> float:
        times = [ends.get(phase, float("inf")) for phase in part.needs]
        if part.name == CONTROL:  # once reinforcement learning has begun
            times.append(next((start for _, other, start, _ in placed if other.name == RL_PHASES[0]), float("inf")))
        return max([0.0, *times])

    while left:
        lane = min(range(lanes), key=free.__getitem__)
        now = free[lane]
        part = next((part for part in left if ready(part) <= now), None)
        if part is None:  # wait for what another lane runs
            others = (free[other] for other in range(lanes) if other != lane)
            free[lane] = min(moment for moment in (*map(ready, left), *others) if moment > now)
            continue
        left.remove(part)
        free[lane] = now + length[part.name]
        ends.update(dict.fromkeys(part.phases, free[lane]))
        placed.append((lane, part, now, free[lane]))
    return placed


def measured(run: Run, share: float, assumed: Mapping[str, float]) -> dict[str, float]:
    """Phase -> seconds of a core. Raises UserError if one is neither measured nor assumed."""
    phases = {name: phase.seconds * share for name, phase in run.manifest.phases.items() if phase.done}
    needed = {FIRST, *(phase for part in PARTS if part.name != CONTROL for phase in part.phases)}
    missing = sorted(needed - {*phases, *assumed})
    if missing:
        raise UserError(f"{run.folder} has no time of {', '.join(missing)}: assume it with --assume PHASE=SECONDS")
    return {CONTROL: 0.0, **phases, **assumed}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of a core that each phase had")
    parser.add_argument("--assume", action="append", default=[], metavar="PHASE=SECONDS", help="of an unfinished phase")
    options = parser.parse_args(arguments)
    assumed = {name: float(value) for name, _, value in (each.partition("=") for each in options.assume)}
    try:
        seconds = measured(Run.open(options.run), options.share, assumed)
    except UserError as error:
        parser.error(str(error))
    for lanes in (1, 2, 3):
        placed = schedule(seconds, lanes)
        print(f"{lanes} at a time: {duration(max(end for *_, end in placed))}")
        if lanes == 2:
            for lane, part, start, end in placed:
                print(f"  {'  ' * 12 * lane}{duration(start)} - {duration(end)}  {part.name}")


if __name__ == "__main__":
    main()
