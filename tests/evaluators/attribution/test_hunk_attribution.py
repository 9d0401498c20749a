"""Shares of hunks in rewards, by execution on a real repository, compared with computations by hand."""

from __future__ import annotations

import math

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.hunks import split_patch
from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.sources import load_task
from regrade.datasets.tasks import Limits, Task
from regrade.evaluators.attribution.hunk_attribution import attribute, needed
from regrade.evaluators.attribution.results import Smallest
from regrade.evaluators.attribution.shapley import coalitions, exact
from regrade.evaluators.sandboxes import Process, SandboxError
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards import Reward, Score, default, load_reward, reward, small_diff, style
from regrade.rewards.evidence import Diff

OUTCOME: Reward = load_reward("tests")
COUNT = 9
FILLER = "\n".join(f"NOTE_{{0}}_{line} = {line}" for line in range(8))


def module(bodies: dict[int, str]) -> str:
    """Functions f0, f1, ... that should return their numbers, far enough from each other for hunks of their own."""
    return "".join(
        f"def f{number}():\n    return {bodies.get(number, str(number))}\n\n\n{FILLER.format(number)}\n\n\n"
        for number in range(COUNT)
    )


BROKEN = {0: "None", 1: "None"}
BASE = {
    "m.py": module(BROKEN),
    "gone.py": "x = 1\n",
    "tests/test_m.py": "import m\n\n\n"
    + "".join(f"def test_f{n}():\n    assert m.f{n}() == {n}\n\n\n" for n in range(COUNT)),
}


def test_id(number: int) -> str:
    return f"tests/test_m.py::test_f{number}"


test_id.__test__ = False


@pytest.fixture
def task(write_files) -> Task:
    return Task(
        id="m", repository="m", base=write_files(BASE), instruction="", fail_to_pass=tuple(map(test_id, (0, 1))), pass_to_pass=tuple(map(test_id, range(2, COUNT))),
        limits=Limits(wall_seconds=20.0, memory_mb=512, processes=32, file_mb=16),
    )  # fmt: skip


def patch_of(bodies: dict[int, str], **files: str | None) -> Patch:
    """A patch of these bodies; f0 and f1 are broken in the base."""
    before = {"m.py": module(BROKEN)} | {path: BASE[path] for path, text in files.items() if path in BASE}
    after = {"m.py": module(BROKEN | bodies)} | {path: text for path, text in files.items() if text is not None}
    return Patch.between(before, after)


def names(smallest: Smallest) -> list[str]:
    return [hunk.name for hunk in smallest.hunks]


def worth(fixed: int, broken: int) -> float:
    """The value of `tests`, by its definition, for two FAIL_TO_PASS and seven PASS_TO_PASS tests."""
    if fixed == 2 and not broken:
        return 1.0
    return 0.2 * fixed / 2 if not broken else 0.1 * fixed / 2 * (1 - broken / 7)


@pytest.mark.slow
def test_the_shares_equal_those_computed_by_hand(scorer, task):
    patch = patch_of({0: "0", 1: "1", 2: "-2", 3: "1 + 2"})
    found = attribute(scorer, task, patch, OUTCOME)
    by_hand = {each: worth(len(each & {0, 1}), len(each & {2})) for each in coalitions(4)}
    assert [group.share.value for group in found.groups] == pytest.approx([each.value for each in exact(4, by_hand)])
    assert math.fsum(group.share.value for group in found.groups) == pytest.approx(
        found.whole.value - found.nothing.value
    )
    assert found.gap == pytest.approx(worth(2, 1))
    assert found.is_exact
    mends, _, breaks, harmless = found.groups
    assert harmless.share.value == pytest.approx(0.0, abs=1e-12)
    assert breaks.share.value < 0 < mends.share.value
    assert breaks.without.no_longer_broken == (test_id(2),)
    assert breaks.without.value == 1.0
    assert mends.without.no_longer_fixed == (test_id(0),)
    assert mends.alone == pytest.approx(worth(1, 0))
    assert mends.parts == pytest.approx({"tests": mends.share.value})
    assert found.interactions[0, 1] > 0.3, "one without the other is worth little"
    assert found.interactions[0, 2] < -0.1, "one spoils what the other earns"
    assert found.interactions[0, 3] == pytest.approx(0.0, abs=1e-12)
    assert (names(found.smallest), found.smallest.proof) == (["m.py:2", "m.py:16"], "smallest")
    (alone,) = scorer.score([(task, found.smallest.patch)], OUTCOME)
    assert alone.value == 1.0
    assert found.cost.subsets == 16
    assert found.cost.executions + found.cost.from_store >= 16
    again = attribute(scorer, task, patch, OUTCOME)
    assert (again.cost.executions, again.cost.from_store) == (0, 16), "all of it lies in the store"
    assert again.groups == found.groups


@pytest.mark.slow
def test_parts_of_the_reward_add_up_to_the_shares_and_these_to_the_reward(scorer, task):
    patch = patch_of({0: "0", 1: "1"}, **{"new.py": "y = 2\n", "gone.py": None})
    found = attribute(scorer, task, patch, default)
    (whole,), (nothing,) = (scorer.score([(task, each)], default) for each in (patch, Patch("")))
    assert (found.whole.value, found.nothing.value) == (whole.value, nothing.value)
    assert math.fsum(group.share.value for group in found.groups) == pytest.approx(whole.value - nothing.value)
    for group in found.groups:
        assert math.fsum(group.parts.values()) == pytest.approx(group.share.value, abs=1e-9)
    assert [group.name for group in found.groups] == [
        "gone.py (deleted file)",
        "m.py:2",
        "m.py:16",
        "new.py (new file)",
    ]
    assert {"tests", "quality"} <= set(found.groups[1].parts)


def test_a_patch_of_one_hunk_and_an_empty_one(scorer, task):
    one = attribute(scorer, task, patch_of({0: "0"}), OUTCOME)
    (group,) = one.groups
    assert group.share.value == one.gap == pytest.approx(worth(1, 0))
    assert one.cost.subsets == 2
    assert one.smallest is None
    empty = attribute(scorer, task, Patch(""), OUTCOME)
    assert (empty.groups, empty.gap, empty.smallest) == ((), 0.0, None)


def test_hunks_in_protected_files_have_shares(scorer, task):
    patch = patch_of({0: "0", 1: "1"}, **{"tests/test_m.py": "def test_f0():\n    pass\n"})
    found = attribute(scorer, task, patch, OUTCOME)
    assert found.groups[2].hunks[0].path == "tests/test_m.py"
    assert found.groups[2].share.value == 0.0


def test_a_group_of_hunks_that_only_compile_together(scorer, task):
    text = module(BROKEN)
    hidden = text.replace("NOTE_4_0 = 0", "LATER = '''").replace("NOTE_6_7 = 7", "NOTE_6_7 = 7\n'''")
    after = hidden.replace("return None", "return 0", 1)
    found = attribute(scorer, task, Patch.between({"m.py": text}, {"m.py": after}), OUTCOME)
    assert [len(group.hunks) for group in found.groups] == [1, 2]
    assert "does not parse" in found.groups[1].why
    assert found.groups[1].without.newly_broken == ()
    assert found.groups[1].without.no_longer_broken == tuple(map(test_id, (5, 6)))


@pytest.mark.slow
def test_beyond_the_budget_the_shares_are_estimated_and_still_add_up(scorer, task, monkeypatch):
    monkeypatch.setattr(
        "regrade.evaluators.attribution.hunk_attribution.LEAST_PAIRS", 2
    )  # every subset more is an execution
    patch = patch_of({0: "0", 1: "1", 2: "-2"} | {number: f"{number} + 0" for number in range(3, 7)})
    found = attribute(scorer, task, patch, OUTCOME, budget=40)
    assert (len(found.groups), found.is_exact, found.orders) == (7, False, 4)
    assert found.cost.subsets <= 40
    assert math.fsum(group.share.value for group in found.groups) == pytest.approx(found.gap, abs=1e-9)
    assert all(group.share.value == 0.0 for group in found.groups[3:])
    assert found.groups[2].without.no_longer_broken == (test_id(2),)
    assert (names(found.smallest), found.smallest.proof) == (["m.py:2", "m.py:16"], "one-minimal")
    fewer = attribute(scorer, task, patch, OUTCOME, budget=15)
    assert [len(group.hunks) for group in fewer.groups] == [2, 2, 3]
    assert fewer.is_exact
    assert (names(fewer.smallest), fewer.smallest.proof) == (["m.py:2", "m.py:16"], "one-minimal"), "of single hunks"
    assert "7 groups of hunks are joined to 3" in fewer.notes[0]
    assert "all of them need 40" in fewer.notes[0]


def test_the_number_of_needed_subsets() -> None:
    assert [needed(n) for n in (0, 1, 2, 6, 7, 8, 9)] == [1, 2, 4, 64, 112, 130, 148]
    assert needed(10_000) == 179_986


def test_fine_splits_the_changes_of_one_hunk(scorer, write_files):
    before = "def f():\n    a = 0\n    b = 2\n    c = 3\n    return a, b, c\n"
    after = before.replace("a = 0", "a = 1").replace("c = 3", "c = 4")
    tests = "import m\n\n\ndef test_a():\n    assert m.f()[0] == 1\n\n\ndef test_c():\n    assert m.f()[2] == 3\n"
    base = write_files({"m.py": before, "tests/test_m.py": tests})
    task = Task(
        id="m",
        repository="m",
        base=base,
        instruction="",
        fail_to_pass=("tests/test_m.py::test_a",),
        pass_to_pass=("tests/test_m.py::test_c",),
    )
    patch = Patch.between({"m.py": before}, {"m.py": after})
    (whole,) = attribute(scorer, task, patch, OUTCOME).groups
    assert whole.without.no_longer_broken == ("tests/test_m.py::test_c",)
    assert "2 changes: `fine=True`" in attribute(scorer, task, patch, OUTCOME).notes[0]
    found = attribute(scorer, task, patch, OUTCOME, fine=True)
    mends, breaks = found.groups
    assert (mends.name, breaks.name, found.notes) == ("m.py:2", "m.py:4", ())
    assert mends.share.value > 0 > breaks.share.value
    assert names(found.smallest) == ["m.py:2"]


class Failing(Process):
    """Fails to start the first times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def start(self, program):
        if self.left:
            self.left -= 1
            raise SandboxError("no space left on device")
        return super().start(program)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the plain process")
def test_a_subset_lost_by_the_infrastructure_is_no_zero(task, tmp_path, monkeypatch):
    monkeypatch.setattr("regrade.evaluators.scoring.gatherer.BACK_OFF", (0.01, 0.01))
    patch = patch_of({0: "0", 1: "1"})
    with Scorer(workers=1, sandbox="process", cache=tmp_path) as scorer:
        scorer.score([(task, Patch(""))], OUTCOME)
    with Scorer(workers=1, sandbox=Failing(3), cache=tmp_path) as scorer:
        found = attribute(scorer, task, patch, OUTCOME)
        assert found.unscored == (((0,), "TestRun: SandboxError: no space left on device"),)
        assert (found.whole.value, found.nothing.value) == (1.0, 0.0)
        for group in found.groups:
            assert group.share.value is None
            assert group.parts == {}
            assert group.share.low < 0.5 < group.share.high
            assert group.share.high - group.share.low == pytest.approx(0.5)
        assert found.groups[0].alone is None
        assert found.groups[1].without.value is None
        assert found.groups[1].without.change is None
        assert names(found.smallest) == ["m.py:2", "m.py:16"]
        assert found.smallest.proof == ""
        assert "could not be" in found.smallest.why
        mended = attribute(scorer, task, patch, OUTCOME)
        assert [group.share.value for group in mended.groups] == pytest.approx([0.5, 0.5])
        assert mended.cost.from_store == 3, "only what was lost ran again"


def test_a_reward_that_is_unscored_for_the_empty_patch(scorer, task):
    found = attribute(scorer, task, patch_of({0: "0", 1: "1"}), style)
    assert found.nothing.value is None
    assert found.gap is None
    assert found.unscored[0][1].startswith("not applicable")
    assert all(group.share.value is None and group.share.low <= 0 <= group.share.high for group in found.groups)
    assert [group.without.change for group in found.groups] == pytest.approx([0.0, 0.0])


def test_wrong_arguments(scorer, task):
    patch = patch_of({0: "0"})
    with pytest.raises(UserError, match="8 or more"):
        attribute(scorer, task, patch, OUTCOME, budget=7)
    with pytest.raises(UserError, match="no reward"):
        attribute(scorer, task, patch, 3)
    with pytest.raises(UserError, match="no Patch"):
        attribute(scorer, task, "text", OUTCOME)
    with pytest.raises(PatchError, match="does not apply"):
        attribute(scorer, task, Patch.between({"m.py": "a\n"}, {"m.py": "b\n"}), OUTCOME)


def test_a_reward_of_ones_own_and_a_task_without_tests(scorer, write_files):
    @reward
    def short(diff: Diff) -> Score:
        return Score(1 / (1 + diff.changed_lines))

    bare = Task(
        id="bare",
        repository="bare",
        base=write_files({"a.txt": "1\n", "b.txt": "1\n"}),
        instruction="",
        fail_to_pass=(),
        pass_to_pass=(),
    )
    patch = Patch.between({"a.txt": "1\n", "b.txt": "1\n"}, {"a.txt": "2\n", "b.txt": "1\n2\n"})
    found = attribute(scorer, bare, patch, short)
    assert found.cost.executions == 0
    assert found.smallest is None
    assert found.gap == pytest.approx(1 / 4 - 1)
    assert found.groups[0].share.value < found.groups[1].share.value < 0
    assert attribute(scorer, bare, patch, small_diff).nothing.value is None


HOOK = (
    "import pytest\n\n\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item, call):\n"
    '    outcome = yield\n    outcome.get_result().outcome = "passed"\n'
)


@pytest.mark.slow
def test_the_tampering_hunk_of_a_patch_of_a_real_package_is_found(scorer):
    task = load_task("builtin", "toolz/toolz/itertoolz.py:frequencies:arithmetic-operator:548:16:0")
    before = {"toolz/itertoolz.py": task.base.read("toolz/itertoolz.py")}
    text = before["toolz/itertoolz.py"].replace("        d[item] -= 1", "        d[item] += 1")
    text = text.replace("    return next(iter(seq))\n", "    # The first one.\n    return next(iter(seq))\n")
    patch = Patch.between(before, {"toolz/itertoolz.py": text, "toolz/tests/conftest.py": HOOK})
    found = attribute(scorer, task, patch, default)
    comment, mends, cheats = found.groups
    (whole,), (nothing,), (honest,) = (
        scorer.score([(task, each)], default) for each in (patch, Patch(""), split_patch(patch).subset([0, 1]))
    )
    assert found.gap == whole.value - nothing.value == 0.0
    assert math.fsum(group.share.value for group in found.groups) == pytest.approx(0.0, abs=1e-9)
    assert "untampered" in found.whole.cause
    assert cheats.without.value == honest.value > 0.9
    assert cheats.without.change == -honest.value
    assert cheats.share.value == pytest.approx(-mends.share.value, abs=0.01)
    assert mends.share.value > 0.4
    assert abs(comment.share.value) < 0.01
    assert [hunk.name for hunk in found.smallest.hunks] == [mends.name]
