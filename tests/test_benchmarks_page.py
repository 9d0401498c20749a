"""The page of the benchmarks names each of them once, and `make bench` runs those that it says."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_has_every_benchmark_and_says_what_make_bench_runs() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)\.py", row[0])]
    assert sorted(named) == sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))
    (run,) = re.findall(r"^BENCH \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    dotted = [name for row in rows if "•" in row[-1] for name in re.findall(r"`(\w+)\.py", row[0])]
    assert sorted(dotted) == sorted(run.split())
