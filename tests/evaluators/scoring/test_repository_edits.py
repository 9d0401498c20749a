"""A repository that was edited after its task was created is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Tree
from regrade.evaluators.scoring.repository_edits import edited_files
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.scoring.task_digests import Digests
from regrade.rewards.evidence import Diff

TEST = "tests/test_calculator.py"


def seen(task):
    """The task as it is when its files have been read."""
    _ = task.base.digest
    return task


def again(task):
    """The task made of the repository once more."""
    return seen(replace(task, base=Tree(task.base.root)))


def diff_of(scorer, task):
    return scorer.gather([(task, Patch(""))], [Diff])


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (TEST, "def test_add_nothing(): pass\n"),
        ("calculator.py", "def add(a, b): return a + b\n"),
        ("new.py", "x = 1\n"),
        ("pytest.ini", "[pytest]\n"),
        ("tests/data/table.csv", "1,2\n"),
    ],
)
def test_an_edit_before_the_first_scoring_is_refused_by_name(task, tmp_path, path, text):
    seen(task)
    (task.base.root / path).parent.mkdir(parents=True, exist_ok=True)
    (task.base.root / path).write_text(text)
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        with pytest.raises(
            UserError, match=rf"edited after the task was created from it \({path} changed\).* create the task again"
        ):
            diff_of(scorer, task)
        diff_of(scorer, again(task))


def test_a_file_that_is_gone_counts_and_several_are_counted(task, tmp_path):
    for number in range(4):
        (task.base.root / f"helper{number}.py").write_text("")
    seen(task)
    for number in range(4):
        (task.base.root / f"helper{number}.py").unlink()
    with (
        Scorer(workers=1, cache=tmp_path / "cache") as scorer,
        pytest.raises(UserError, match=r"\(helper0.py, helper1.py, helper2.py and 1 more changed\)"),
    ):
        diff_of(scorer, task)


def test_what_can_not_decide_a_verdict_may_change(task, tmp_path):
    (task.base.root / "score.log").write_text("0/9\n")
    seen(task)
    (task.base.root / "score.log").write_text("0/9\n9/9\n")
    (task.base.root / "runs").mkdir()
    (task.base.root / "runs" / "rows.jsonl").write_text("{}\n")
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        diff_of(scorer, task)


def test_what_was_left_out_of_the_task_may_change(task):
    without = seen(replace(task, base=task.base.without([TEST])))
    (task.base.root / TEST).write_text("")
    now = Tree(task.base.root)
    _ = now.digest
    assert edited_files(without, now.known) == []
    assert edited_files(replace(task, base=replace(task.base, known=without.base.known)), now.known) == [TEST]


def test_a_task_made_after_an_edit_wants_a_new_scorer(task, tmp_path):
    seen(task)
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        diff_of(scorer, task)
        (task.base.root / TEST).write_text("def test_add(): pass\n")
        with pytest.raises(UserError, match=r"while this Scorer was in use .* new Scorer"):
            diff_of(scorer, again(task))
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        diff_of(scorer, again(task))


def test_a_task_whose_files_nobody_read_is_taken_as_it_lies_there(task):
    Digests().check(task)
    assert task.base.known == {}
