"""Run the gauntlet, print its table, and write benchmarks/gauntlet.json and the table in docs/security.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from gauntlet import naive
from gauntlet.attacks import ATTACKS, NOT_PLAYED
from gauntlet.documented import with_table
from gauntlet.levels import LEVELS
from gauntlet.play import Row, play
from gauntlet.table import printed, totals
from regrade.evaluators.sandboxes import KINDS, available, choose

FILE = Path(__file__).parents[2] / "benchmarks" / "gauntlet.json"
DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gauntlet", description=__doc__)
    parser.add_argument(
        "--sandbox", action="append", choices=list(KINDS), help="default: all that work on this machine"
    )
    parser.add_argument("--only", action="append", help="rows, such as 16 or +3; no file is written")
    parser.add_argument(
        "--everywhere", action="store_true", help="run levels above in-process in every isolated sandbox"
    )
    parser.add_argument("--workers", type=int, default=max(2, os.cpu_count() or 2))
    parser.add_argument("--out", type=Path, default=FILE)
    chosen = parser.parse_args()
    problems = available()
    names = chosen.sandbox or [name for name, problem in problems.items() if not problem]
    missing = {name: problem for name, problem in problems.items() if problem}
    attacks = [attack for attack in ATTACKS if chosen.only is None or attack.row in chosen.only]
    warnings.simplefilter("ignore", UserWarning)  # the gauntlet shows that a plain process is no boundary
    with tempfile.TemporaryDirectory(prefix="regrade-gauntlet-", ignore_cleanup_errors=True) as folder:
        rows = play(
            attacks, LEVELS, [choose(name) for name in names], Path(folder), workers=chosen.workers,
            everywhere=chosen.everywhere,
            report=lambda text: print(f"gauntlet: {text} ...", file=sys.stderr, flush=True),
        )  # fmt: skip
    printed(rows, [level.name for level in LEVELS], names, missing, {} if chosen.only else NOT_PLAYED)
    if chosen.only is None:
        write(chosen.out, rows, names)
    punished = totals(rows, [level.name for level in LEVELS])["punished"]
    return 1 if punished else 0


def write(path: Path, rows: Sequence[Row], sandboxes: Sequence[str]) -> None:
    """Replace the rows of the file; its other entries stay."""
    recorded = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    levels = [level.name for level in LEVELS]
    recorded |= {
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "sandboxes": list(sandboxes),
        "scorers": list(naive.SCORERS),
        "levels": levels,
        "totals": totals(rows, levels),
        "attacks": [row.to_json() for row in rows],
        "not_played": {str(row): why for row, why in NOT_PLAYED.items()},
    }
    text = json.dumps(recorded, indent=1, sort_keys=True) + "\n"
    packages = sysconfig.get_path("purelib")  # a place of this machine, which tracebacks in reasons name
    path.write_text(text.replace(packages, "site-packages"), "utf-8")
    if path == FILE:
        DOCUMENT.write_text(with_table(DOCUMENT.read_text("utf-8"), recorded), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
