"""`regrade study --list`: what is done and what is left, without torch and without a folder."""

from pathlib import Path


def test_the_list_shows_the_chosen_cells_and_writes_nothing(regrade, tmp_path: Path) -> None:
    out = tmp_path / "study"
    told = regrade("study", "--out", out, "--list", "--cells", "agent-rl-d32-n70-s1")
    assert told.code == 0
    assert [line.split()[0] for line in told.out.splitlines()[1:4]] == [
        "sft-d32-s1",
        "agent-sft-d32-s1",
        "agent-rl-d32-n70-s1",
    ]
    assert told.out.rstrip().endswith("3 cells left")
    assert not out.exists()


def test_a_pattern_without_a_cell_is_an_error_of_one_line(regrade, tmp_path: Path) -> None:
    told = regrade("study", "--out", tmp_path / "study", "--list", "--cells", "ppo-*")
    assert told.code == 2
    assert "no cell of this study matches 'ppo-*'" in told.err
    assert not (tmp_path / "study").exists()
