"""How large a cluster for so many sandboxes? Arithmetic over the figures that other benchmarks measured.

    python benchmarks/sizing.py                                    # 1,000 sandboxes, ready-made tasks
    python benchmarks/sizing.py --sandboxes 1000 --cpu-seconds 30  # a suite that takes 30 CPU seconds per patch

Each line names the source of its figures: a key of benchmarks/latest.json with the command that measures it, or an
option. Nothing is measured here. The model of one worker per core is the one of docs/scoring.md ("Capacity planning").
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from typing import Any

from _latest import FILE

from regrade.evaluators.scoring.arguments import MOST_WORKERS

WORKER_MB = 38
"""Memory of a worker: `python benchmarks/overheads.py --memory --scorings 10000`, docs/scoring.md."""


@dataclass(frozen=True)
class Sizing:
    """The options."""

    sandboxes: int = 1000
    cpu_seconds: float | None = None
    """Per patch; None: what the ready-made tasks took."""
    cores: int = 64
    """Of a machine."""
    memory_mb: int = 512
    """That a candidate really takes; its limit is `Limits.memory_mb`."""
    attempts: int = 1024
    """Different patches of a training step."""


@dataclass(frozen=True)
class Line:
    """One line of the result."""

    what: str
    amount: str
    source: str


def lines(chosen: Sizing, latest: dict[str, Any]) -> list[Line]:
    """The arithmetic, in the order of its steps."""
    measured = float(latest["scoring"]["cpu_seconds_per_patch"])
    seconds = measured if chosen.cpu_seconds is None else chosen.cpu_seconds
    source = "`scoring.cpu_seconds_per_patch`, benchmarks/scoring.py" if chosen.cpu_seconds is None else "--cpu-seconds"
    driver_ms = float(latest["overheads"]["ray_ms"])
    rate, limit = chosen.sandboxes / seconds, 1000 / driver_ms
    machines = math.ceil(chosen.sandboxes / chosen.cores)
    gigabytes = chosen.cores * (WORKER_MB + chosen.memory_mb) / 1024
    return [
        Line("CPU seconds per patch", f"{seconds:.2f}", source),
        Line("cores", f"{chosen.sandboxes:,}", "one per sandbox"),
        Line(f"machines of {chosen.cores} cores", f"{machines:,}", "cores / --cores"),
        Line("memory per machine", f"{gigabytes:.0f} GB", f"cores x ({WORKER_MB} MB worker + --memory-mb)"),
        Line("patches per second", f"{rate:,.0f}", "sandboxes / CPU seconds"),
        Line("most of one driver", f"{limit:,.0f}", "1 / `overheads.ray_ms`, benchmarks/overheads.py"),
        Line("drivers", f"{math.ceil(rate / limit):,}", "patches per second / most of one driver"),
        Line(
            "sandboxes that one driver feeds",
            f"{min(MOST_WORKERS, int(limit * seconds)):,}",
            f"most of one driver x CPU seconds; {MOST_WORKERS:,} threads at most",
        ),
        Line(
            f"a step of {chosen.attempts:,} attempts",
            f"{math.ceil(chosen.attempts / chosen.sandboxes) * seconds:.1f} s",
            "rounds of all sandboxes x CPU seconds",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = Sizing()
    parser.add_argument("--sandboxes", type=int, default=usual.sandboxes)
    parser.add_argument("--cpu-seconds", type=float, default=usual.cpu_seconds, help="CPU seconds per patch")
    parser.add_argument("--cores", type=int, default=usual.cores, help="cores of a machine")
    parser.add_argument("--memory-mb", type=int, default=usual.memory_mb, help="memory that a candidate takes")
    parser.add_argument("--attempts", type=int, default=usual.attempts, help="different patches of a training step")
    for line in lines(Sizing(**vars(parser.parse_args())), json.loads(FILE.read_text())):
        print(f"{line.what:34} {line.amount:>10}   {line.source}")


if __name__ == "__main__":
    main()
