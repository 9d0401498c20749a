"""Stored evidence of a run: another reward scores the same attempts without execution."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.evaluation.rescoring import rescore, rescore_run, write_rescored
from regrade.evaluators.evaluation.rollout_scoring import evaluate, evidence_path
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.evidence_file import EvidenceFile
from regrade.evaluators.storage.run import Run
from regrade.evaluators.storage.serialisation import decode, encode
from regrade.rewards import Score, default, reward, tests
from regrade.rewards.evidence import Diff, EvidenceSet, LintDelta, PatchText, TestOutcome, TestRun, TestStatus

SOURCE = "def total(prices):\n    return sum(prices) - 1\n\n\ndef cheapest(prices):\n    return min(prices)\n"
TESTS = "import shop\n\n\ndef test_total():\n    assert shop.total([1, 2]) == 3\n\n\ndef test_cheapest():\n    assert shop.cheapest([2, 1]) == 1\n"
CHANGES = {
    "fixes": ("sum(prices) - 1", "sum(prices)"),
    "breaks": ("min(prices)", "max(prices)"),
    "both": (
        "sum(prices) - 1\n\n\ndef cheapest(prices):\n    return min",
        "sum(prices)\n\n\ndef cheapest(prices):\n    return max",
    ),
    "nothing": ("", ""),
}


@reward
def careful(run: TestRun, lint: LintDelta) -> Score:
    return Score(float(not run.broken) / (1 + len(lint.added)), why=f"{len(run.broken)} broken")


@dataclass(frozen=True)
class Unheard:
    """Evidence that nobody gathered."""


@reward
def impossible(found: Unheard) -> Score:
    return Score(1.0, why=str(found))


@reward
def quiet(patch: PatchText) -> Score:
    return Score(float(not any("max(" in text for _, _, text in patch.added)), why=repr(patch.added))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    root = tmp_path_factory.mktemp("shop")
    (root / "shop.py").write_text(SOURCE)
    (root / "test_shop.py").write_text(TESTS)
    return Task(
        id="shop/total",
        repository="shop",
        base=Tree(root),
        instruction="Mend it.",
        fail_to_pass=("test_shop.py::test_total",),
        pass_to_pass=("test_shop.py::test_cheapest",),
    )


@pytest.fixture(scope="module")
def run(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real evaluation of four patches, each proposed twice."""
    found = Run(tmp_path_factory.mktemp("runs") / "first")
    found.add_policy("mixed", "candidate")
    rollouts = [
        Rollout(task_id=task.id, policy="mixed", temperature=0.5, sample=sample, seed=0, patch=Patch.between({"shop.py": SOURCE}, {"shop.py": SOURCE.replace(*change)}))
        for sample, change in enumerate([*CHANGES.values(), *CHANGES.values()])
    ]  # fmt: skip
    with Scorer(workers=1, cache=tmp_path_factory.mktemp("cache")) as scorer:
        evaluate(rollouts, [task], scorer, default, found.evaluation("mixed"))
    return found


def test_the_same_reward_gives_the_same_rows(run: Run) -> None:
    (before, after) = rescore_run(run, default)["mixed"]
    assert len(before) == 8
    assert after == before


def test_another_reward_judges_the_same_attempts(run: Run) -> None:
    (_, after) = rescore_run(run, careful)["mixed"]
    assert [row["reward"] for row in after] == [1.0, 0.0, 0.0, 1.0] * 2
    assert {row["reward_name"] for row in after} == {"careful"}
    assert after[1]["parts"][0]["why"] == "1 broken"


def test_a_reward_may_read_the_text_of_the_patch(run: Run) -> None:
    (_, after) = rescore_run(run, quiet)["mixed"]
    assert [row["reward"] for row in after] == [1.0, 0.0, 0.0, 1.0] * 2
    assert after[1]["parts"][0]["why"] == "(('shop.py', 6, '    return max(prices)'),)"


def test_a_run_of_an_earlier_version_has_the_text_in_its_rows(run: Run, tmp_path: Path) -> None:
    """Its evidence has no record of the text: the same verdicts come from the rows."""
    old = Run(shutil.copytree(run.folder, tmp_path / "old"))
    evidence = evidence_path(old.evaluation("mixed"))
    lines = [json.loads(line) for line in evidence.read_text().splitlines()]
    removed = [line["records"].pop("PatchText") for line in lines if "records" in line]
    assert len(removed) == len(CHANGES)
    evidence.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert rescore_run(old, quiet)["mixed"][1] == rescore_run(run, quiet)["mixed"][1]


def test_it_runs_nothing_and_needs_no_sandbox(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("from regrade.rewards import tests, style\nmine = 0.5 * tests + 0.5 * style\n")
    script = (
        "import os, subprocess, sys\n"
        "def refuse(*a, **k): raise SystemExit('started a process')\n"
        "subprocess.Popen.__init__ = os.fork = os.posix_spawn = refuse\n"
        "from regrade.cli.main import main\n"
        "sys.exit(main())"
    )
    arguments = ["rescore", str(run.folder), "--reward", f"{own}:mine", "--json"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    (record,) = map(json.loads, done.stdout.splitlines())
    assert record["attempts"] == 8
    assert record["unscored"] == 0
    assert 0 < record["after"] < 1


def test_a_copy_with_other_rewards_is_a_run(run: Run, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    out = tmp_path / "second"
    rows = {name: after for name, (_, after) in rescore_run(run, careful).items()}
    copy = write_rescored(run, rows, out)
    assert [row["reward"] for row in journal.read(copy.evaluation("mixed"))] == [1.0, 0.0, 0.0, 1.0] * 2
    assert rescore_run(copy, default)["mixed"][1] == journal.read(run.evaluation("mixed"))
    assert {path.name: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
    with pytest.raises(UserError, match="exists already: choose a new folder with `out=FOLDER`"):
        write_rescored(run, rows, out)
    assert [path.name for path in tmp_path.iterdir()] == ["second"]


def test_missing_evidence_is_refused(run: Run) -> None:
    with pytest.raises(UserError, match="has no Unheard, which reward 'impossible' needs: evaluate again"):
        rescore_run(run, impossible)


def test_rows_without_evidence_are_refused(run: Run, tmp_path: Path) -> None:
    rows = journal.read(run.evaluation("mixed"))
    with pytest.raises(UserError, match="no evidence of the attempt of 'mixed' at 'shop/total': evaluate it again"):
        list(rescore(rows, EvidenceFile(tmp_path / "nothing"), tests))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: [b"nonsense", *lines], "line 1: not evidence of a run"),
        (lambda lines: lines[1:], "line 1: not evidence of a run"),
        (lambda lines: [line.replace(b'"schema": 1', b'"schema": 99') for line in lines], "schema 99, this version"),
    ],
)
def test_a_file_without_evidence_is_refused(
    run: Run, tmp_path: Path, spoil: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    path = tmp_path / "spoilt.evidence"
    lines = evidence_path(run.evaluation("mixed")).read_bytes().splitlines()
    path.write_bytes(b"\n".join([*spoil(lines), b""]))
    with pytest.raises(UserError, match=said):
        EvidenceFile(path)


def test_a_torn_last_line_counts_as_not_written(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "torn.evidence"
    whole = evidence_path(run.evaluation("mixed")).read_bytes()
    path.write_bytes(whole[:-20])
    assert len(EvidenceFile(path)) == len(CHANGES) - 1


def test_a_gap_is_filled_by_later_evidence(task: Task, tmp_path: Path) -> None:
    kept = EvidenceFile(tmp_path / "x.evidence")
    kept.add([(task, "p", EvidenceSet({}, {Diff: "the disk was full"}))])
    kept.add([(task, "p", EvidenceSet({Diff: Diff(1, 2, ("a.py",))}))])
    kept.add([(task, "p", EvidenceSet({Diff: Diff(9, 9, ("a.py",))}))])
    for found in (kept, EvidenceFile(kept.path)):
        stored = found.get((task.digest, "p"))
        assert stored is not None
        assert stored.of(frozenset({Diff})).records == {Diff: Diff(1, 2, ("a.py",))}


def test_what_an_earlier_reward_needed_stays_and_odd_text_is_readable(task: Task, tmp_path: Path) -> None:
    kept = EvidenceFile(tmp_path / "x.evidence")
    lint, diff = LintDelta((), (), 1), Diff(1, 2, ("\ud800.py",))
    kept.add([(task, "p", EvidenceSet({LintDelta: lint}))])
    kept.add([(task, "p", EvidenceSet({Diff: diff}))])
    for found in (kept, EvidenceFile(kept.path)):
        stored = found.get((task.digest, "p"))
        assert stored is not None
        assert stored.of(frozenset({LintDelta, Diff})).records == {LintDelta: lint, Diff: Diff(1, 2, ("?.py",))}


outcomes = st.builds(TestOutcome, st.sampled_from(TestStatus), st.sampled_from(["", "E"]), st.sampled_from([0.0, 0.25]))
ids = st.sampled_from([f"{file}::{name}" for file in ("a.py", "b.py", "c.py") for name in ("x", "y", "z")])


@given(st.dictionaries(ids, outcomes, min_size=1), st.data())
def test_a_stored_run_equals_the_run(found: dict[str, TestOutcome], data: Any) -> None:
    count = data.draw(st.integers(0, len(found)))
    wanted, guarded = tuple(found)[:count], tuple(found)[count:]
    fresh = TestRun(outcomes=found, fail_to_pass=wanted, pass_to_pass=guarded)
    again = decode(
        TestRun,
        encode(fresh),
        Task(
            id="id",
            repository="r",
            base=Tree(Path("/nowhere")),
            instruction="",
            fail_to_pass=wanted,
            pass_to_pass=guarded,
        ),
    )
    assert again == fresh
    for name in ("fixed", "broken", "verified_files", "resolved"):
        assert getattr(again, name) == getattr(fresh, name)
    assert tests.evaluate(EvidenceSet({TestRun: again})) == tests.evaluate(EvidenceSet({TestRun: fresh}))


def test_half_a_surrogate_pair_survives() -> None:
    task = Task(
        id="id", repository="r", base=Tree(Path("/nowhere")), instruction="", fail_to_pass=("t::a",), pass_to_pass=()
    )
    run = TestRun(
        outcomes={"t::a": TestOutcome(TestStatus.FAILED, "assert '\ud800' == 'é'")},
        fail_to_pass=("t::a",),
        pass_to_pass=(),
    )
    assert decode(TestRun, encode(run), task) == run
    assert decode(Diff, encode(Diff(1, 2, ("\udcff.py",))), task) == Diff(1, 2, ("\udcff.py",))
