"""Honest patches of every kind on real packages are scored alike with the defences and without."""

from __future__ import annotations

from pathlib import Path

import honest
import pytest

from regrade.datasets.sources import load_tasks
from regrade.evaluators.scoring.scorer import Scorer

FEW = 10


@pytest.mark.slow
def test_no_honest_patch_is_punished(tmp_path: Path) -> None:
    patches = honest.honest_patches(honest.spread(load_tasks(split="validation"), FEW))
    assert {patch.kind for patch in patches} == honest.KINDS.keys()
    with Scorer(workers=2, cache=tmp_path) as scorer:
        found = honest.sweep(patches, scorer)
    assert [(both.honest.kind, both.problem) for both in found if both.problem] == []
    assert all(both.value == 1.0 for both in found)
