"""Run the contracts, and print and store a table: package, version, what ran, what an unscored answer did.

Exit code 0: every contract that could run holds; 1: one does not, or none could run. With --light, only those that need
no torch run, for a minute together; what does not fit is skipped, and the exit code is 1 only if one does not hold.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from contracts.packages import CONTRACTS, INSTALLATION_SECONDS, ROOT, Contract, UnavailableError, environment
from contracts.task_folder import variables
from regrade.datasets.caches import default_cache

SECONDS = 900
"""Longest time of one program."""
LIGHT_SECONDS = 240
"""Longest time of all light contracts together, with pip."""
HEADER = "| package | version | result | what ran | an unscored answer | seconds |\n|-|-|-|-|-|-|\n"


def row(contract: Contract, folder: Path, cache: Path, ends_at: float = math.inf) -> tuple[str, str]:
    """(result, line of the table): `holds`, `FAILS` or `skipped`. The seconds are those of the program alone.

    Args:
        ends_at: by the monotonic clock; what has not ended then is skipped.
    """
    try:
        python = environment(contract, cache, min(INSTALLATION_SECONDS, ends_at - time.monotonic()))
    except UnavailableError as error:
        return "skipped", _line(contract.package, "", "skipped", str(error), "", "")
    begun = time.monotonic()
    left = min(SECONDS, max(0.0, ends_at - begun))
    try:
        done = subprocess.run(
            [python, contract.program],
            cwd=folder,
            env=variables(folder),
            capture_output=True,
            text=True,
            timeout=left,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        if left < SECONDS:
            return "skipped", _line(contract.package, "", "skipped", "its time was over", "", "")
        print(f"{contract.name}:\n{_text(error.stdout)[-2000:]}\n{_text(error.stderr)[-6000:]}", file=sys.stderr)
        return "FAILS", _line(contract.package, "", "FAILS", f"did not end within {SECONDS} s", "", "")
    seconds = f"{time.monotonic() - begun:.0f}"
    if done.returncode != 0:
        print(f"{contract.name}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}", file=sys.stderr)
        return "FAILS", _line(contract.package, "", "FAILS", "the output is above", "", seconds)
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    return "holds", _line(contract.package, facts["version"], "holds", facts["ran"], facts["unscored"], seconds)


def _line(*cells: str) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _text(output: str | bytes | None) -> str:
    """What a process printed before its time was over, which is bytes even if text was asked for."""
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="contracts", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of: " + ", ".join(each.name for each in CONTRACTS))
    parser.add_argument("--light", action="store_true", help="see above")
    parser.add_argument("--cache", type=Path, default=default_cache() / "contracts", help="folder of the environments")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "contracts.md", help="file of the table")
    options = parser.parse_args()
    known = {contract.name: contract for contract in CONTRACTS}
    if unknown := sorted(set(options.names) - set(known)):
        parser.error(f"unknown contract {unknown[0]!r}: give some of {', '.join(known)}")
    names = options.names or [name for name, contract in known.items() if contract.is_light or not options.light]
    ends_at = time.monotonic() + LIGHT_SECONDS if options.light else math.inf
    results, table = [], HEADER
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            result, line = row(known[name], Path(folder), options.cache, ends_at)
        print(f"{name}: {result}", file=sys.stderr, flush=True)
        results.append(result)
        table += line + "\n"
        options.out.write_text(table)  # each row at once: what has run is kept if the command is stopped
    print(table, end="")
    return int("FAILS" in results or ("holds" not in results and not options.light))


if __name__ == "__main__":
    sys.exit(main())
