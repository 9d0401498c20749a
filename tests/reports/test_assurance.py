"""Every output of a run says which levels its verdicts reached, what that cost, and what they do not exclude."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from regrade.evaluators.analysis import comparability
from regrade.evaluators.storage.manifest import Manifest
from regrade.evaluators.storage.run import Run
from regrade.reports.assurance import assurance_figures, assurance_lines
from regrade.rewards.assurance import BY_DEFAULT
from regrade.rewards.assurance_level import AssuranceLevel


def gate(level: str) -> list[dict[str, object]]:
    return [{"name": "tests", "why": "fixes 1"}, {"name": "assured", "why": f"{level}: as measured"}]


ROWS = pd.DataFrame(
    {
        "fixed": [1.0, 1.0, 2.0, 0.0],
        "parts": [gate("out-of-process"), gate("tripwired"), gate("out-of-process"), gate("held-out")],
        "verification_seconds": [0.2, 0.4, 0.2, 0.0],
        "execution_seconds": [1.0, 1.0, 1.0, 3.0],
    }
)


def test_levels_costs_and_what_is_not_excluded() -> None:
    figures = assurance_figures(Manifest(assurance=BY_DEFAULT), [ROWS])
    assert figures["fixes"] == {"tripwired": 1, "out-of-process": 2}
    assert (figures["verification_seconds"], figures["tests_seconds"]) == (0.2, 1.5)
    assert assurance_lines(figures) == [
        "assurance: by default (fixes: 1 tripwired, 2 out-of-process); +0.20 s per patch, tests 1.50 s",
        AssuranceLevel.IN_PROCESS.not_excluded,
    ]


@pytest.mark.parametrize("level", ["unconfined", "in-process"])
def test_the_weakest_levels_point_to_what_they_do_not_exclude(level: str, tmp_path: Path) -> None:
    rows = ROWS.assign(parts=[[], [], [], []], verification_seconds=float("nan"))
    first, last = assurance_lines(assurance_figures(Manifest(assurance=level), [rows]))
    assert first == f"assurance: {level}"
    assert last.startswith(f"{level}: does not exclude ")
    assert last.endswith("(docs/security.md)")
    run = Run(tmp_path / "run")
    run.update(assurance=level)
    assert last in comparability.check(run.folder, run.folder)[1], "a comparison says it too"


@pytest.mark.parametrize("level", ["", "tripwired", "held-out"])
def test_other_runs_have_no_such_line(level: str) -> None:
    lines = assurance_lines(assurance_figures(Manifest(assurance=level), [ROWS]))
    assert not any("does not exclude" in line for line in lines)
