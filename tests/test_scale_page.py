"""docs/scale.md: the arithmetic for 1,000 sandboxes is what `benchmarks/sizing.py` prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_table_of_sizes_is_what_the_command_prints(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import sizing

    latest = json.loads((ROOT / "benchmarks" / "latest.json").read_text("utf-8"))
    one, other = sizing.lines(sizing.Sizing(), latest), sizing.lines(sizing.Sizing(cpu_seconds=30.0), latest)
    rows = [f"| {a.what} | {a.amount} | {b.amount} | {a.source} |" for a, b in zip(one, other, strict=True)]
    assert "\n".join(rows) in (ROOT / "docs" / "scale.md").read_text("utf-8"), "\n".join(rows)
    assert sizing.lines(sizing.Sizing(sandboxes=2), latest)[4].amount == str(
        round(2 / latest["scoring"]["cpu_seconds_per_patch"])
    )
    sys.modules.pop("sizing")
