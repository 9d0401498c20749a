"""Run the contracts, and print and store a table: package, version, what ran, what an unscored answer did.

Exit code 0: every contract that could run holds; 1: one does not, or none could run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from contracts.packages import CONTRACTS, ROOT, Contract, UnavailableError, environment
from contracts.task_folder import variables
from regrade.datasets.caches import default_cache

SECONDS = 900
HEADER = "| package | version | result | what ran | an unscored answer |\n|-|-|-|-|-|\n"


def row(contract: Contract, folder: Path, cache: Path) -> tuple[str, str]:
    """(result, line of the table): `holds`, `fails` or `skipped`."""
    try:
        python = environment(contract, cache)
    except UnavailableError as error:
        return "skipped", f"| {contract.package} | | skipped | {error} | |"
    done = subprocess.run(
        [python, contract.program],
        cwd=folder,
        env=variables(folder),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode != 0:
        print(f"{contract.package}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}", file=sys.stderr)
        return "fails", f"| {contract.package} | | FAILS | | |"
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    return "holds", f"| {contract.package} | {facts['version']} | holds | {facts['ran']} | {facts['unscored']} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="contracts", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of: " + ", ".join(each.name for each in CONTRACTS))
    parser.add_argument("--cache", type=Path, default=default_cache() / "contracts", help="folder of the environments")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "contracts.md", help="file of the table")
    options = parser.parse_args()
    known = {contract.name: contract for contract in CONTRACTS}
    if unknown := sorted(set(options.names) - set(known)):
        parser.error(f"unknown contract {unknown[0]!r}: give some of {', '.join(known)}")
    results, lines = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names or known:
            print(f"{name} ...", file=sys.stderr, flush=True)
            result, line = row(known[name], Path(folder), options.cache)
            results.append(result)
            lines.append(line)
    table = HEADER + "\n".join(lines) + "\n"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(table)
    print(table, end="")
    return int("fails" in results or "holds" not in results)


if __name__ == "__main__":
    sys.exit(main())
