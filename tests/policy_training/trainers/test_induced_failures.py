"""A short form of `benchmarks/induced_failures.py`: with the guard, a failing training ends no worse than it began."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from regrade.evaluators.scoring.scorer import Scorer

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.mark.slow
def test_a_training_that_forgets_ends_worse_beyond_its_interval_only_without_the_guard(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The score is that of tasks that the guard's probe does not see, by executed attempts."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    induced = importlib.import_module("induced_failures")
    of = induced.Experiment(tmp_path, scorer, sizes=(0, 4, 20), sft_steps=200)
    before = of.scores(of.policy())
    guarded, alone = (induced.outcome(of, "forgets", before, guarded=guarded) for guarded in (True, False))
    assert "probe at step" in guarded.alarms
    assert not guarded.is_worse, guarded
    assert alone.is_worse, alone
