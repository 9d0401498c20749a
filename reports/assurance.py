"""The assurance of a run's verdicts: how many reached which level, what that cost, and what it does not exclude."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from regrade.evaluators.storage.manifest import Manifest
from regrade.rewards.assurance import not_excluded
from regrade.rewards.assurance_level import AssuranceLevel


def assurance_figures(manifest: Manifest, rows: Iterable[pd.DataFrame]) -> dict[str, Any]:
    """Keys: `level` (that the run requires), `fixes` (level -> verdicts that say that a patch fixes a bug),
    `verification_seconds` and `tests_seconds` (means of a patch), `not_excluded` (in words)."""
    tables = list(rows)
    fixes: Counter[str] = Counter()
    for table in tables:
        fixes.update(level for parts in table[table["fixed"] > 0]["parts"] if (level := level_of(parts)))
    level = manifest.assurance
    return {
        "level": level,
        "fixes": {level: fixes[level] for level in AssuranceLevel if level in fixes},
        "verification_seconds": _mean(tables, "verification_seconds"),
        "tests_seconds": _mean(tables, "execution_seconds"),
        "not_excluded": not_excluded(level),
    }


def assurance_lines(figures: dict[str, Any]) -> list[str]:
    """The figures in words, one sentence a line."""
    if not figures["level"]:
        return []
    levels = ", ".join(f"{count} {level}" for level, count in figures["fixes"].items())
    line = f"assurance: {figures['level']}{f' (fixes: {levels})' if levels else ''}"
    if figures["verification_seconds"] is not None and figures["tests_seconds"] is not None:
        line += f"; +{figures['verification_seconds']:.2f} s per patch, tests {figures['tests_seconds']:.2f} s"
    return [line, *filter(None, [figures["not_excluded"]])]


def level_of(parts: Any) -> str:
    """The level in the reason of the gate on it; empty without such a gate."""
    for part in parts if isinstance(parts, list) else ():
        if str(part.get("name", "")).startswith("assured"):
            words = str(part.get("why", "")).replace(":", " ").split(maxsplit=1)
            return words[0] if words and words[0] in list(AssuranceLevel) else ""
    return ""


def _mean(tables: list[pd.DataFrame], column: str) -> float | None:
    values = pd.concat([table[column] for table in tables]).dropna() if tables else pd.Series(dtype="float64")
    return None if values.empty else round(float(values.mean()), 4)
