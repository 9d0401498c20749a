import json
import math
from dataclasses import replace

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Limits, Target, Task, TestSuite, Tree
from regrade.evaluators.evaluation.rollout_scoring import evaluate, recorded
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.rows import COLUMNS, load_rows
from regrade.rewards import Score, reward
from regrade.rewards.evidence import EvidenceSet, TestRun

SOURCE = """\
def total(prices):
    return sum(prices) - 1


def label(price):
    return f"{price:.2f}"


def cheapest(prices):
    return min(prices)
"""
TESTS = """\
import shop


def test_total():
    assert shop.total([1, 2]) == 3


def test_label():
    assert shop.label(2) == "2.00"


def test_cheapest():
    assert shop.cheapest([2, 1]) == 1
"""
ENDLESS = "return sum(iter(int, 1))"


@reward
def resolved(run: TestRun) -> Score:
    return Score(float(run.resolved), why=f"{len(run.fixed)} fixed, {len(run.broken)} broken")


@reward
def gentle(run: TestRun) -> Score:
    return Score(1 / (1 + len(run.broken)), why=f"{len(run.broken)} broken")


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Task:
    root = tmp_path_factory.mktemp("shop")
    (root / "shop.py").write_text(SOURCE)
    (root / "test_shop.py").write_text(TESTS)
    return Task(
        id="shop/total",
        repository="shop",
        base=Tree(root),
        instruction="Mend the total.",
        fail_to_pass=("test_shop.py::test_total",),
        pass_to_pass=("test_shop.py::test_cheapest", "test_shop.py::test_label"),
        suite=TestSuite(),
        limits=Limits(wall_seconds=3),
        target=Target("shop.py", "total", 1, 2),
    )


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer(workers=1, cache=tmp_path_factory.mktemp("cache")) as scorer:
        yield scorer


def change(*edits: tuple[str, str]) -> Patch:
    after = SOURCE
    for old, new in edits:
        assert old in after
        after = after.replace(old, new)
    return Patch.between({"shop.py": SOURCE}, {"shop.py": after})


FIX = ("sum(prices) - 1", "sum(prices)")
BREAK = (".2f", ".1f")
ANSWERS = {
    "fixes": (change(FIX), True),
    "fixes and breaks": (change(FIX, BREAK), True),
    "breaks": (change(BREAK), True),
    "changes nothing": (Patch(""), True),
    "cannot be read": (Patch(""), False),
    "does not apply": (Patch(change(FIX).text.replace("sum(prices)", "sum(costs)")), True),
    "hangs": (change(("return sum(prices) - 1", ENDLESS)), True),
    "leaves": (change(("return sum(prices) - 1", "__import__('os')._exit(0)")), True),
    "does not compile": (change(("sum(prices) - 1", "sum(prices")), True),
}


def attempts(*names: str, policy: str = "p") -> list[Rollout]:
    return [
        Rollout(
            task_id="shop/total",
            policy=policy,
            temperature=0.5,
            sample=number,
            seed=7,
            patch=ANSWERS[name][0],
            well_formed=ANSWERS[name][1],
            completion=name,
        )
        for number, name in enumerate(names)
    ]


class Counting:
    """Counts the jobs on their way to a real scorer; `lost` of them fail as if the infrastructure had."""

    def __init__(self, scorer, lost=0):
        self.scorer, self.lost, self.jobs, self.chunks = scorer, lost, 0, 0

    def gather(self, jobs, needs, *, reachable=False):
        assert not reachable
        self.jobs += len(jobs)
        self.chunks += 1
        found = self.scorer.gather(jobs, needs)
        broken = EvidenceSet({}, {TestRun: "the worker was lost"})
        return [broken] * self.lost + found[self.lost :]


def test_every_kind_of_answer(task, scorer):
    rows = evaluate(attempts(*ANSWERS), [task], scorer, resolved).set_index("completion")
    assert list(rows.index) == list(ANSWERS)
    assert set(COLUMNS) <= {*rows.columns, "completion"}

    def found(name):
        row = rows.loc[name]
        return tuple(int(row[column]) for column in ("fix", "broken", "broke", "clean_fix", "empty"))

    assert found("fixes") == (1, 0, 0, 1, 0)
    assert found("fixes and breaks") == (1, 1, 1, 0, 0)
    assert found("breaks") == (0, 1, 1, 0, 0)
    assert found("changes nothing") == (0, 0, 0, 0, 1)
    assert found("cannot be read") == (0, 0, 0, 0, 1)
    assert found("does not apply") == (0, 0, 0, 0, 1)
    assert found("does not compile") == (0, 2, 1, 0, 0)
    for name, end in (("hangs", "timeout"), ("leaves", "crashed")):
        assert rows.loc[name, "end"] == end
        assert rows.loc[name, "broke"] == 1
        assert rows.loc[name, "clean_fix"] == 0
    assert rows.loc["does not apply", "end"] == "not applied"
    assert list(rows.index[~rows["applied"]]) == ["does not apply"]
    assert list(rows.index[~rows["well_formed"]]) == ["cannot be read"]
    assert rows.loc["breaks", "broken_tests"] == ["test_shop.py::test_label"]
    assert (rows["guarded"] == 2).all()
    assert rows.loc["fixes", "reward"] == 1.0
    assert rows.loc["fixes", "parts"][0]["why"] == "1 fixed, 0 broken"
    assert rows.loc["fixes", "function"] == "shop.py::total"
    assert rows.loc["fixes", "changed_lines"] == 2


def test_rows_on_disk_are_not_scored_again(task, scorer, tmp_path):
    out = tmp_path / "rows.jsonl"
    counting = Counting(scorer)
    first = evaluate(attempts("fixes", "breaks"), [task], counting, resolved, out, chunk=1)
    assert (counting.jobs, counting.chunks) == (2, 2)
    with out.open("a") as file:
        file.write('{"policy": "p", "torn')  # what a killed process leaves
    again = evaluate(attempts("fixes", "breaks", "changes nothing"), [task], counting, resolved, out)
    assert counting.jobs == 3
    assert again.iloc[:2].equals(first)
    assert load_rows(out).equals(again)
    assert recorded(out) == {("p", "shop/total", 0.5, sample, 7) for sample in range(3)}
    assert len(out.read_text().splitlines()) == 3


def test_another_patch_reward_or_task_is_another_row(task, scorer, tmp_path):
    out, counting = tmp_path / "rows.jsonl", Counting(scorer)
    evaluate(attempts("fixes"), [task], counting, resolved, out)
    evaluate(attempts("breaks"), [task], counting, resolved, out)
    assert counting.jobs == 2
    assert load_rows(out)["fix"].tolist() == [0]  # the latest patch of the same attempt
    evaluate(attempts("breaks"), [task], counting, gentle, out)
    assert load_rows(out)["reward"].tolist() == [0.5]
    evaluate(attempts("breaks"), [replace(task, limits=Limits(wall_seconds=6))], counting, gentle, out)
    assert counting.jobs == 4


def test_attempts_lost_to_the_infrastructure_are_null_and_repeated(task, scorer, tmp_path):
    out = tmp_path / "rows.jsonl"
    lost = evaluate(attempts("fixes", "breaks"), [task], Counting(scorer, lost=1), resolved, out).iloc[0]
    assert lost["status"] == "unscored"
    assert "the worker was lost" in lost["cause"]
    assert all(math.isnan(lost[name]) for name in ("fix", "broke", "broken", "clean_fix", "reward"))
    assert json.loads(out.read_text().splitlines()[0])["reward"] is None
    assert len(recorded(out)) == 1
    counting = Counting(scorer)
    again = evaluate(attempts("fixes", "breaks"), [task], counting, resolved, out)
    assert counting.jobs == 1
    assert again["fix"].tolist() == [1, 0]
    assert load_rows(out)["fix"].tolist() == [1, 0]


def test_rollouts_are_read_as_they_are_needed(task, scorer):
    counting, seen = Counting(scorer), []

    def stream():
        for number, rollout in enumerate(attempts(*["changes nothing"] * 5)):
            seen.append((number, counting.jobs))
            yield rollout

    done: list[int] = []
    evaluate(stream(), [task], counting, resolved, chunk=2, progress=done.append)
    assert seen == [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4)]
    assert done == [2, 4, 5]


def test_mistakes_are_named(task, scorer, tmp_path):
    with pytest.raises(UserError, match="'shop/total', which is not among the 0 given tasks"):
        evaluate(attempts("fixes"), [], scorer, resolved)
    with pytest.raises(UserError, match="no such file"):
        load_rows(tmp_path / "none.jsonl")
    journal.append(tmp_path / "other.jsonl", [{"a": 1}])
    with pytest.raises(
        UserError, match=r"other.jsonl, row 1: not a row of an evaluation: 'policy' must be a string; the key"
    ):
        load_rows(tmp_path / "other.jsonl")
    assert evaluate([], [task], scorer, resolved).empty
