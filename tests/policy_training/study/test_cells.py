"""The grid of a study: which cells there are, what each needs, and how long the rest takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.evaluators.storage.manifest import Phase
from regrade.evaluators.storage.run import Run
from regrade.policy_training.study.cells import JUDGED, Cell, cell_folder, cell_states, chosen, grid
from regrade.policy_training.study.settings import CROSS_MODULE, FULL, QUICK, StudySettings

SMALL = replace(FULL, demonstrations=(16, 32), tests_only=(70, 546), seeds=(0,))


@pytest.mark.parametrize("settings", [FULL, QUICK, CROSS_MODULE, SMALL, replace(SMALL, agents=(True,))])
def test_each_cell_stands_once_and_after_those_that_it_needs(settings: StudySettings) -> None:
    cells = grid(settings)
    assert len({cell.name for cell in cells}) == len(cells)
    for place, cell in enumerate(cells):
        assert set(cell.needs) <= set(cells[:place])
    assert settings.few in settings.demonstrations
    assert settings.task_shares <= min(settings.tests_only)


def test_the_grid_has_both_axes() -> None:
    names = [cell.name for cell in grid(replace(SMALL, agents=(False,)))]
    assert names == [
        *("sft-d16-s0", "rl-d16-n546-s0", "control-d16-n546-s0"),
        *("sft-d32-s0", "rl-d32-n546-s0", "control-d32-n546-s0"),
        *("rl-d32-n70-s0", "control-d32-n70-s0"),
    ]


def test_chosen_cells_bring_those_that_they_need() -> None:
    cells = grid(SMALL)
    assert [cell.name for cell in chosen(cells, ["agent-control-d32-n70-*"])] == [
        *("sft-d32-s0", "agent-sft-d32-s0", "agent-rl-d32-n70-s0", "agent-control-d32-n70-s0")
    ]
    assert chosen(cells, []) == cells
    with pytest.raises(UserError, match=r"no cell of this study matches 'rl-d48-\*': the cells are sft-d16-s0, rl-d16"):
        chosen(cells, ["sft-*", "rl-d48-*"])


def test_a_cell_takes_as_long_as_the_most_similar_finished_one(tmp_path: Path) -> None:
    cells = grid(SMALL)
    spent = {"rl-d16-n546-s0": (100.0, True), "rl-d32-n70-s0": (40.0, True), "rl-d32-n546-s0": (30.0, False)}
    for cell in cells:
        if cell.name in spent:
            seconds, is_done = spent[cell.name]
            Run(cell_folder(tmp_path, cell)).update(phases={JUDGED: Phase(seconds, is_done)})
    states = {state.cell.name: state for state in cell_states(tmp_path, cells)}
    assert (states["rl-d16-n546-s0"].is_done, states["rl-d16-n546-s0"].left) == (True, 0.0)
    assert (states["rl-d32-n546-s0"].is_done, states["rl-d32-n546-s0"].left) == (False, 70.0)
    assert states["control-d32-n70-s0"].left == 40.0
    assert states["sft-d16-s0"].left is None, "no SFT is finished"
    assert states["agent-rl-d16-n546-s0"].left is None, "no agent is finished"
    assert Cell("sft", 16, 0, 0).needs == ()
