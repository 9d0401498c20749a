"""The scorer: its evidence, its caching, and the attribution of failures."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from regrade import rewards
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import TestSuite, Tree
from regrade.evaluators.attribution.hunk_attribution import attribute
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.sandboxes import Process, SandboxError, choose
from regrade.evaluators.sandboxes.scratch import scratch_folder
from regrade.evaluators.scoring.scorer import Scorer, score
from regrade.evaluators.task_curation.baseline import baseline
from regrade.rewards.evidence import (
    BuildRun,
    ComplexityDelta,
    Diff,
    End,
    Impact,
    Integrity,
    LintDelta,
    ReadabilityDelta,
    TestRun,
    TestStatus,
)
from tests.evaluators.conftest import FAILING, FILES

ALL = (TestRun, BuildRun, LintDelta, ComplexityDelta, ReadabilityDelta, Impact, Diff, Integrity)


def run_of(scorer, task, patch, **options):
    return scorer.gather([(task, patch)], [TestRun], **options)[0].records[TestRun]


def test_a_fresh_scorer_ignores_what_is_stored_and_stores_anew(task, fix, tmp_path):
    """The patch was judged on a machine that was too slow for it; now it is not."""
    flaw = "it was slow"
    with Scorer(workers=1, cache=tmp_path) as scorer:
        run = run_of(scorer, task, fix)
        (job,) = scorer._planner.plan([(task, fix)], (TestRun,), reachable=False)
        scorer._planner.store(job, TestRun, replace(run, end=End.TIMEOUT, detail=flaw), reachable=False)
        assert run_of(scorer, task, fix).detail == flaw
    with Scorer(workers=1, cache=tmp_path, fresh=True) as scorer:
        assert run_of(scorer, task, fix).resolved
        assert run_of(scorer, task, fix).end is End.COMPLETED
        assert (scorer.stats.executions, scorer.stats.hits) == (1, 1), "its own evidence is no longer stale"
    with Scorer(workers=1, cache=tmp_path) as scorer:
        assert (run_of(scorer, task, fix).detail, scorer.stats.executions) == ("", 0)


def test_a_fix_is_told_from_nothing_and_from_harm(scorer, task, fix, edit):
    nothing, fixed, harm = (run_of(scorer, task, patch) for patch in (Patch(""), fix, edit("a - b", "1 / 0")))
    assert (nothing.fixed, nothing.broken, nothing.resolved) == ((), (), False)
    assert (fixed.fixed, fixed.broken, fixed.resolved) == (task.fail_to_pass, (), True)
    assert harm.broken == ("tests/test_calculator.py::test_add_nothing",)
    assert harm.outcomes[task.fail_to_pass[0]].message == (
        "tests/test_calculator.py:6: assert add(1, 2) == 3\nZeroDivisionError: division by zero"
    )


def test_all_kinds_of_evidence_are_gathered_in_the_order_of_the_jobs(scorer, task, fix, edit):
    patches = [fix, Patch(""), edit("count = 0", "count = 1"), fix]
    told = []
    found = scorer.gather(
        [(task, patch) for patch in patches], ALL, progress=lambda done, total: told.append((done, total))
    )
    assert all(set(evidence.records) == set(ALL) for evidence in found)
    assert [evidence.records[Diff].changed_lines for evidence in found] == [2, 0, 2, 2]
    assert [evidence.records[TestRun].resolved for evidence in found] == [True, False, False, True]
    assert told == sorted(told)
    assert told[-1] == (4, 4)
    assert {evidence.assurance for evidence in found} == {scorer.assurance}


def test_equal_patches_run_once_and_never_again(task, fix, tmp_path):
    jobs = [(task, fix), (task, Patch("")), (replace(task, id="again"), fix), (task, fix)]
    with Scorer(workers=1, cache=tmp_path) as first:
        found = first.gather(jobs, [TestRun])
        assert (first.stats.executions, first.stats.hits) == (2, 2)
        assert first.gather(jobs, [TestRun]) == found
        assert (first.stats.executions, first.stats.hits) == (2, 6)
    with Scorer(workers=1, cache=tmp_path) as second:
        assert second.gather(jobs, [TestRun]) == found
        assert second.stats.executions == 0


def test_what_could_change_the_verdict_makes_another_job(task, fix, scorer):
    run_of(scorer, task, fix)
    before = scorer.stats.executions
    changed = task.base.read("calculator.py").replace("product = 0", "product = 1")
    for other in (
        replace(task, limits=replace(task.limits, wall_seconds=21.0)),
        replace(task, base=task.base.with_files({"calculator.py": changed})),
        replace(task, pass_to_pass=task.pass_to_pass[:-1]),
        replace(task, reference=fix),  # it explains what a run does that is otherwise a sign of cheating
    ):
        run_of(scorer, other, fix)
    assert scorer.stats.executions == before + 4
    run_of(scorer, replace(task, instruction="in other words"), fix)
    assert scorer.stats.executions == before + 4


def test_a_patch_that_does_not_apply_runs_nothing(scorer, task):
    patch = Patch("--- a/calculator.py\n+++ b/calculator.py\n@@ -1 +1 @@\n-other\n+text\n")
    before = scorer.stats.executions
    evidence = scorer.gather([(task, patch)], ALL)[0]
    run = evidence.records[TestRun]
    assert run.end is End.NOT_APPLIED
    assert "does not apply" in run.detail
    assert {outcome.status for outcome in run.outcomes.values()} == {TestStatus.MISSING}
    assert run.broken == task.pass_to_pass
    assert not evidence.records[BuildRun].ok
    assert scorer.stats.executions == before


def test_a_text_that_is_no_patch_is_low_and_not_an_error(scorer, task):
    evidence = scorer.gather([(task, Patch("I would rather not."))], ALL)[0]
    assert set(evidence.records) == set(ALL)
    assert evidence.records[TestRun].end is End.NOT_APPLIED
    assert scorer.score([(task, Patch("I would rather not."))], rewards.tests)[0].value == 0.0


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("import os; os._exit(0)", End.CRASHED),
        ("import sys; sys.exit(0)", End.COMPLETED),
        ("return 1 +", End.COMPLETED),
    ],
)
def test_what_the_candidate_caused_is_its_own(scorer, task, edit, code, end):
    evidence = scorer.gather([(task, edit("return a - b", code))], [TestRun])[0]
    assert not evidence.infrastructure
    assert evidence.records[TestRun].end is end
    assert not evidence.records[TestRun].resolved
    assert evidence.records[TestRun].broken


def test_a_hang_is_the_candidates(scorer, task, edit):
    short = replace(task, limits=replace(task.limits, wall_seconds=2.0))
    run = run_of(scorer, short, edit("return a - b", "while True: pass"))
    assert run.end is End.TIMEOUT
    assert run.detail.startswith("stopped at the limit of 2 s")
    assert not run.fixed


def test_tests_that_the_patch_brings_or_changes_count_for_nothing(scorer, task):
    path = "tests/test_calculator.py"
    easy = Patch.between(
        {path: task.base.read(path)}, {path: "def test_add(): pass\n", "conftest.py": "raise SystemExit\n"}
    )
    run = run_of(scorer, task, easy)
    assert run.outcomes == run_of(scorer, task, Patch("")).outcomes
    assert not run.fixed


# ---------------------------------------------------------------- reach


@pytest.fixture(scope="module")
def measurements(tmp_path_factory):
    """The suite of the calculator with what a baseline measures, whatever the folder of the repository."""
    root = tmp_path_factory.mktemp("measured")
    for path, text in FILES.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text)
    suite = TestSuite()
    found = baseline(Tree(root), suite, sandbox=choose(), cache=root.parent / "cache of measurements", runs=2)
    assert found.failing == (FAILING,)
    return found.applied_to(suite)


@pytest.fixture
def measured(task, measurements):
    return replace(task, suite=measurements)


def test_only_reachable_tests_run_where_that_is_asked_for(scorer, measured, fix):
    reachable = run_of(scorer, measured, fix, reachable=True)
    assert reachable.scope == "reachable"
    reached = [test for test, outcome in reachable.outcomes.items() if outcome.status is not TestStatus.UNREACHED]
    assert reached == ["tests/test_calculator.py::test_add", "tests/test_calculator.py::test_add_nothing"]
    assert reachable.resolved
    whole = run_of(scorer, measured, fix)
    assert whole.scope == "full"
    assert {outcome.status for outcome in whole.outcomes.values()} == {TestStatus.PASSED}


@rewards.reward
def runs_all(run: TestRun) -> rewards.Score:
    return rewards.Score(float(run.scope == "full"))


def test_every_way_to_score_runs_the_whole_suite_unless_told_otherwise(scorer, measured, fix, tmp_path):
    jobs = [(measured, fix)]
    ways = (
        lambda **scope: scorer.score(jobs, runs_all, **scope)[0],
        lambda **scope: next(scorer.stream(jobs, runs_all, **scope)),
        lambda **scope: asyncio.run(scorer.score_async(measured, fix, runs_all, **scope)),
        lambda **scope: score(measured, fix, runs_all, cache=tmp_path / "cache", **scope),
        lambda **scope: attribute(scorer, measured, fix, runs_all, **scope).whole.breakdown,
    )
    assert [way().value for way in ways] == [1.0] * len(ways)
    assert [way(reachable=True).value for way in ways] == [0.0] * len(ways)


def test_a_bad_patch_spares_the_rest_of_the_suite(scorer, measured, edit):
    run = run_of(scorer, measured, edit("a - b", "1 / 0"))
    assert run.scope == "reachable"
    assert run.broken == ("tests/test_calculator.py::test_add_nothing",)


UNLUCKY = """\
from pathlib import Path


def test_unlucky():
    ahead = Path({path!r})
    left = int(ahead.read_text())
    ahead.write_text(str(left - 1))
    assert left <= 0
"""


@pytest.mark.filterwarnings("ignore:the plain process")
@pytest.mark.parametrize(("failures", "broken"), [(1, ()), (2, ("tests/test_unlucky.py::test_unlucky",))])
def test_a_failure_that_the_patch_does_not_reach_must_happen_twice(write_files, task, fix, tmp_path, failures, broken):
    """A test that fails the next so many times, for reasons of its own: it keeps count outside of any sandbox."""
    with tempfile.NamedTemporaryFile("w") as ahead:
        Path(ahead.name).chmod(0o666)
        Path(ahead.name).write_text("0")
        files = {path: task.base.read(path) for path in task.base.paths()}
        base = write_files(files | {"tests/test_unlucky.py": UNLUCKY.format(path=ahead.name)})
        found = baseline(base, task.suite, sandbox=Process(), cache=tmp_path / "cache", runs=2)
        unlucky = replace(task, base=base, pass_to_pass=found.stable, suite=found.applied_to(task.suite))
        Path(ahead.name).write_text(str(failures))
        with Scorer(workers=1, sandbox=Process(), cache=tmp_path / "cache") as scorer:
            run = run_of(scorer, unlucky, fix)
    assert run.fixed == task.fail_to_pass
    assert run.broken == broken
    assert run.scope == "full"


CHANCE = """\
import random
import unittest

drawn = random.random()


def test_early():
    random.random()


class Late(unittest.TestCase):
    def test_late(self):
        self.assertEqual([random.random(), drawn, 0, object()], [0] * 40)
"""


def test_chance_and_addresses_are_the_same_every_time(write_files, task, tmp_path):
    files = {"calculator.py": "", "tests/test_chance.py": CHANCE}
    late, early = "tests/test_chance.py::Late::test_late", "tests/test_chance.py::test_early"
    said = set()
    for number, others in enumerate(((early,), (), (early,))):
        asked = replace(task, base=write_files(files), fail_to_pass=(late,), pass_to_pass=others)
        with Scorer(workers=1, cache=tmp_path / f"cache{number}") as scorer:  # another process, at other addresses
            (found,) = scorer.gather([(asked, Patch(""))], [TestRun])
        said.add(found.records[TestRun].outcomes[late].message)
    assert len(said) == 1
    assert "AssertionError" in said.pop()


def test_a_change_that_runs_on_import_runs_everything(scorer, measured, edit):
    run = run_of(scorer, measured, edit("product += a", "product -= a"), reachable=True)
    assert run.scope == "full"
    assert len(run.broken) == 3


# ---------------------------------------------------------------- builds


def test_a_build_must_import(scorer, task, edit, write_files):
    def build(patch, task=task):
        return scorer.gather([(task, patch)], [BuildRun])[0].records[BuildRun]

    assert build(edit("a - b", "a + b")).ok
    broken = build(edit("import functools", "import functools_that_is_not"))
    assert not broken.ok
    assert broken.error == "calculator: calculator.py:1: ModuleNotFoundError: No module named 'functools_that_is_not'"
    assert not build(edit("return a - b", "return a -")).ok
    base = write_files({"calculator.py": task.base.read("calculator.py"), "optional.py": "import not_installed\n"})
    elsewhere = replace(task, base=base)
    assert build(edit("step = 1", "step = 2"), elsewhere).ok  # what failed before is not held against the patch
    assert not build(edit("import functools", "import functools_that_is_not"), elsewhere).ok


PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "calculator"
dynamic = ["version"]

[tool.setuptools]
py-modules = ["calculator"]
dynamic = {version = {attr = "calculator.__version__"}}
"""


@pytest.mark.slow
def test_a_wheel_is_built_where_the_change_matters_to_it(scorer, task, edit, write_files):
    pytest.importorskip("setuptools")
    source = task.base.read("calculator.py")
    versioned = {"calculator.py": f'{source}\n\n__version__ = "1.0"\n'}
    files = {path: task.base.read(path) for path in task.base.paths()}
    packed = replace(task, base=write_files(files | versioned | {"pyproject.toml": PYPROJECT, "notes.txt": ""}))

    def build(patch, task=packed):
        return scorer.gather([(task, patch)], [BuildRun])[0].records[BuildRun]

    assert build(Patch.between({}, {"more.py": "x = 1\n"})) == BuildRun(True, 1, wheel=True)
    assert build(Patch.between({"notes.txt": ""}, {"notes.txt": "x\n"})) == BuildRun(True, 0, wheel=True)
    unversioned = build(Patch.between(versioned, {"calculator.py": source}))
    assert not unversioned.ok
    assert unversioned.error.startswith("the wheel: ")
    assert "__version__" in unversioned.error
    unpackable = replace(packed, base=write_files(files | {"pyproject.toml": PYPROJECT}))
    assert build(edit("import functools", "import functools\n\nx = 1"), unpackable) == BuildRun(True, 1)  # nor before
    assert build(Patch.between({}, {"notes.txt": "x\n"}), task) == BuildRun(True, 0)  # nothing to build


def test_a_failing_import_names_file_and_line(scorer, task, edit):
    (found,) = scorer.gather([(task, edit("import functools", "import functools\n\n1 / 0"))], [BuildRun])
    assert found.records[BuildRun].error == "calculator: calculator.py:3: ZeroDivisionError: division by zero"


# ---------------------------------------------------------------- infrastructure


class Failing(Process):
    """Does not start the first times."""

    def __init__(self, times, error=SandboxError):
        self.left, self.error, self.started = times, error, 0

    def start(self, program):
        self.started += 1
        if self.left:
            self.left -= 1
            raise self.error("no space left on device")
        return super().start(program)


@pytest.mark.filterwarnings("ignore:the plain process")
@pytest.mark.parametrize("error", [SandboxError, OSError])
def test_a_failure_of_the_infrastructure_is_tried_again(task, fix, tmp_path, error, caplog):
    with Scorer(workers=1, sandbox=Failing(2, error), cache=tmp_path) as scorer:
        assert run_of(scorer, task, fix).resolved
        assert scorer.stats.retries == 2
    why = f"task {task.id}: {error.__name__}: no space left on device"
    assert [record.getMessage() for record in caplog.records] == [
        f"retry {number} of 3 in {pause} s: {why}" for number, pause in ((1, 0.5), (2, 2.0))
    ]


@pytest.mark.filterwarnings("ignore:the plain process")
def test_then_it_is_unscored_and_not_zero_and_not_kept(task, fix, tmp_path, monkeypatch):
    monkeypatch.setattr("regrade.evaluators.scoring.gatherer.BACK_OFF", (0.01, 0.01))
    sandbox = Failing(3)
    with Scorer(workers=1, sandbox=sandbox, cache=tmp_path) as scorer:
        evidence = scorer.gather([(task, fix)], [TestRun, Diff])[0]
        assert evidence.infrastructure == {TestRun: "SandboxError: no space left on device"}
        assert set(evidence.records) == {Diff}
        assert rewards.tests.evaluate(evidence).status == "unscored"
        assert rewards.tests.evaluate(evidence).value is None
        assert run_of(scorer, task, fix).resolved


def test_a_disk_that_is_full_for_a_moment_costs_no_job(task, fix, tmp_path, monkeypatch):
    monkeypatch.setattr("regrade.evaluators.scoring.gatherer.BACK_OFF", (0.01, 0.01))
    failures = iter([Full(0), Full(0)])

    def prepare_later(*job):
        for failure in failures:
            raise failure
        return prepare(*job)

    monkeypatch.setattr("regrade.evaluators.scoring.gatherer.prepare", prepare_later)
    with Scorer(workers=1, cache=tmp_path) as scorer:
        assert run_of(scorer, task, fix).resolved
        assert scorer.stats.retries == 2


FLIP = """UPDATE evidence SET record = replace(record, '"letters":"' || substr(record, 13, 1), '"letters":"f')
WHERE kind = 'TestRun'"""


class Full(OSError):
    def __init__(self, _):
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.filterwarnings("ignore:the plain process")
def test_a_full_disk_says_how_to_free_space(task, fix, tmp_path, monkeypatch):
    monkeypatch.setattr("regrade.evaluators.scoring.gatherer.BACK_OFF", ())
    with Scorer(workers=1, sandbox=Failing(1, Full), cache=tmp_path) as scorer:
        evidence = scorer.gather([(task, fix)], [TestRun])[0]
    assert re.search(r"No space left on device; free space .*`regrade cache`", evidence.infrastructure[TestRun])
    with pytest.raises(UserError, match=r"No space left on device\): free space"):
        baseline(task.base, task.suite, sandbox=Failing(1, Full), runs=1)


def test_evidence_that_the_store_can_not_take_counts_is_told_once_and_kept_later(task, tmp_path):
    with Scorer(workers=1, cache=tmp_path) as scorer:
        pages = scorer._store._database.execute("PRAGMA page_count").fetchone()[0]
        scorer._store._database.execute(f"PRAGMA max_page_count = {pages}")
        long = Patch.between({}, {f"notes{number}.py": f"{number}\n" for number in range(3000)})
        with pytest.warns(
            UserWarning, match=r"can't be stored.*database or disk is full.*free space .*`regrade cache`"
        ) as told:
            (evidence,) = scorer.gather([(task, long)], [Diff, ComplexityDelta])
        assert len(evidence.records[Diff].files) == 3000
        assert (scorer.stats.unkept, len(told)) == (2, 1)
        assert "that of 1 verdict waits in memory, and is lost if this process is killed" in str(told[0].message)
        scorer._store._database.execute(f"PRAGMA max_page_count = {100 * pages}")
        with pytest.warns(UserWarning, match="waited in memory is stored now: that of 1 verdict"):
            scorer.gather([(task, Patch(""))], [Diff])  # there is room again
    with Scorer(workers=1, cache=tmp_path) as scorer:
        scorer.gather([(task, long)], [Diff, ComplexityDelta])
        assert scorer.stats.hits == 1


def test_the_number_of_verdicts_that_wait_for_room_is_told(task, tmp_path):
    patches = [Patch.between({}, {f"notes{number}/{file}.py": "1\n" for file in range(300)}) for number in range(12)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with Scorer(workers=1, cache=tmp_path) as scorer:
            pages = scorer._store._database.execute("PRAGMA page_count").fetchone()[0]
            scorer._store._database.execute(f"PRAGMA max_page_count = {pages}")
            scorer.gather([(task, patch) for patch in patches], [Diff])
            assert scorer._store.waiting == 12
    counts = [re.search(r"that of (\d+) verdict.* waits", str(one.message)) for one in told]
    assert [found[1] for found in counts if found] == ["1", "10"]
    assert "evidence of 12 verdicts was not stored, and is gathered again in the next run" in str(told[-1].message)


def test_damaged_evidence_is_gathered_again_and_counted(task, fix, tmp_path):
    with Scorer(workers=1, cache=tmp_path) as scorer:
        found = scorer.gather([(task, fix)], [TestRun, Diff])[0].records
    database = sqlite3.connect(tmp_path / "evidence.sqlite")
    # One letter is another one: still a record of the right shape, and another verdict.
    changed = database.execute(FLIP).rowcount
    database.commit()
    database.close()
    assert changed == 1
    with Scorer(workers=1, cache=tmp_path) as scorer:
        again = scorer.gather([(task, fix)], [TestRun, Diff])[0].records
        assert (scorer.stats.damaged, scorer.stats.executions) == (1, 1)
        assert scorer.gather([(task, fix)], [TestRun, Diff])[0].records == again
        assert (scorer.stats.damaged, scorer.stats.executions) == (1, 1)
    assert again[TestRun].outcomes == found[TestRun].outcomes


def test_a_candidate_that_kills_its_worker_each_time_has_crashed(task, edit, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("regrade.evaluators.scoring.gatherer.BACK_OFF", (0.1, 0.1, 0.1))
    kill = edit("return a - b", "import os; os.kill(os.getppid(), 9); import time; time.sleep(60)")
    with pytest.warns(UserWarning, match="no security boundary"):
        scorer = Scorer(workers=1, sandbox="process", cache=tmp_path)
    with scorer:
        evidence = scorer.gather([(task, kill)], [TestRun])[0]
        assert evidence.records[TestRun].end is End.CRASHED
        assert "4 times" in evidence.records[TestRun].detail
        assert evidence.assurance == "unconfined"
        said = [record.getMessage() for record in caplog.records]
        assert sum(message.startswith("worker died: folder ") for message in said) == 4
        assert sum(message.startswith("retry ") for message in said) == 3
        assert said[-1] == f"no further retry: task {task.id}, TestRun"
        assert run_of(scorer, task, Patch("")).end is End.COMPLETED


def test_sandboxes_that_are_killed_from_outside_three_times_are_not_the_candidates_doing(
    task, edit, tmp_path, monkeypatch
):
    monkeypatch.setattr("regrade.evaluators.scoring.gatherer.BACK_OFF", (0.1, 0.1, 0.1))
    slow = edit("return a - b", "import time; time.sleep(2); return a + b")
    others = psutil.Process().children()
    killed: list[psutil.Process] = []
    is_over = threading.Event()

    def storm() -> None:
        while len(killed) < 3 and not is_over.is_set():
            for child in psutil.Process().children():
                with suppress(psutil.NoSuchProcess):
                    is_sandbox = any("regrade.evaluators.inside.worker" in part for part in child.cmdline())
                    if is_sandbox and child not in (*others, *killed) and time.time() - child.create_time() > 1.5:
                        child.kill()
                        killed.append(child)
            time.sleep(0.05)

    with Scorer(workers=1, cache=tmp_path) as scorer:
        assert run_of(scorer, task, Patch("")).end is End.COMPLETED  # what is found out once is found out now
    with Scorer(workers=1, cache=tmp_path) as scorer:
        killer = threading.Thread(target=storm)
        killer.start()
        try:
            run = run_of(scorer, task, slow)
        finally:
            is_over.set()
            killer.join()
        assert scorer.stats.retries == 3
    assert run.resolved


def test_an_environment_that_can_not_be_used_is_a_mistake(task, fix, tmp_path):
    with Scorer(workers=1, cache=tmp_path) as scorer, pytest.raises(UserError, match="does not run"):
        scorer.gather([(replace(task, requirements=(str(tmp_path / "python"),)), fix)], [TestRun])


@pytest.mark.slow
def test_requirements_that_can_not_be_installed_are_a_mistake(task, fix, tmp_path):
    missing = f"{tmp_path}/missing-1.0-py3-none-any.whl"
    with Scorer(workers=1, cache=tmp_path) as scorer, pytest.raises(UserError, match=r"installing .* failed"):
        scorer.gather([(replace(task, requirements=(missing, "x")), fix)], [TestRun])


# ---------------------------------------------------------------- evidence of one's own


@dataclass(frozen=True)
class Shouting:
    capitals: int


def test_users_bring_evidence_of_their_own(task, fix, tmp_path):
    def probe(before, after, patch, task):  # noqa: ARG001 (every probe has this signature)
        return Shouting(sum(letter.isupper() for letter in after.read("README")))

    with Scorer(workers=1, cache=tmp_path, probes={Shouting: probe}) as scorer:
        assert scorer.gather([(task, fix)], [Shouting])[0].records[Shouting] == Shouting(1)
    with Scorer(workers=1, cache=tmp_path) as scorer, pytest.raises(ValueError, match="no probe gathers Shouting"):
        scorer.gather([(task, fix)], [Shouting])


def test_cold_says_the_same_as_warm(measured, task, fix, edit, tmp_path):
    jobs = [(measured, fix), (measured, Patch("")), (measured, edit("return product", "return a")), (task, fix)]
    with (
        Scorer(workers=1, cache=tmp_path / "cache") as warm,
        Scorer(workers=1, cache=tmp_path / "cache", cold=True) as cold,
    ):
        quick = warm.gather(jobs, [TestRun])
        slow = cold.gather(jobs, [TestRun])
        assert cold.stats.executions == len(jobs), "what was found warm answers nothing cold"
    for one, other in zip(quick, slow, strict=True):
        fast, reference = one.records[TestRun], other.records[TestRun]
        assert (fast.fixed, fast.resolved) == (reference.fixed, reference.resolved)
        assert set(fast.broken) <= set(reference.broken)
        assert bool(fast.broken) == bool(reference.broken)


def test_an_interpreter_started_cold_has_imported_nothing(write_files, task, tmp_path):
    said = "import sys\n\ndef test_said():\n    assert 'statistics' not in sys.modules\n"
    asked = replace(
        task, base=write_files({"test_said.py": said}), fail_to_pass=("test_said.py::test_said",), pass_to_pass=()
    )
    for cold in (True, False):
        with Scorer(workers=1, cache=tmp_path / "cache", cold=cold) as scorer:
            assert run_of(scorer, asked, Patch("")).resolved is cold


def test_an_audit_runs_the_others_and_counts_what_was_missed(measured, edit, fix, tmp_path):
    breaks = edit("self.count += self.step", "self.count -= self.step")
    with Scorer(workers=1, cache=tmp_path / "cache", audit=1.0) as scorer:
        audited = run_of(scorer, measured, breaks, reachable=True)
        assert run_of(scorer, measured, fix, reachable=True).scope == "reachable"
        assert scorer.stats.audited == 2
        assert (scorer.stats.caught, scorer.stats.missed) == (len(audited.broken), ())
        assert scorer.stats.selection_recall == 1.0
    assert audited.scope == "reachable", "an audit that finds nothing leaves the evidence as it is"
    # A measure of reach that knows of no test for `advance`: the selection then misses what the audit finds.
    blind = {key: () if key.endswith("::Counter.advance") else tests for key, tests in measured.suite.reach.items()}
    unaware = replace(measured, suite=replace(measured.suite, reach=blind))
    with Scorer(workers=1, cache=tmp_path / "cache", audit=1.0) as scorer:
        found = run_of(scorer, unaware, breaks, reachable=True)
        assert scorer.stats.missed == tuple(f"{unaware.id}: {test}" for test in found.broken) != ()
        assert scorer.stats.selection_recall == 0.0
    assert found.scope == "full"


def test_a_stream_takes_jobs_no_faster_than_it_answers(task, fix, edit, tmp_path):
    patches = [fix, Patch(""), fix, edit("return product", "return a"), Patch("")]
    taken = []

    def jobs():
        for patch in patches:
            taken.append(patch)
            yield task, patch

    with Scorer(workers=2, cache=tmp_path / "cache") as scorer:
        answers = scorer.stream(jobs(), rewards.tests, ahead=2)
        values = [next(answers).value]
        assert len(taken) == 2
        values += [found.value for found in answers]
        assert scorer.stats.executions == 3
        assert values == [found.value for found in scorer.score([(task, patch) for patch in patches], rewards.tests)]
        left = scorer.stream(
            ((task, edit("return product", f"return {number}")) for number in range(50)), rewards.tests
        )
        next(left)
        left.close()
        assert scorer.stats.executions < 30
        assert scorer.score([(task, fix)], rewards.tests)[0].value == 1.0


def test_many_are_awaited_at_once_and_equal_ones_run_once(task, fix, edit, tmp_path):
    async def ask(scorer):
        patches = [fix, Patch(""), fix, fix, edit("return product", "return a")]
        return await asyncio.gather(*(scorer.score_async(task, patch, rewards.tests) for patch in patches))

    with Scorer(workers=2, cache=tmp_path / "cache") as scorer:
        found = asyncio.run(ask(scorer))
        assert scorer.stats.executions == 3
    assert [each.value for each in found[:4]] == [1.0, 0.0, 1.0, 1.0]


def test_many_threads_gather_at_once_and_equal_jobs_run_once(task, fix, edit, tmp_path):
    """As the agents of a task call it: some run the same tests of the same tree, and others only some of its tests."""
    patches = [fix, Patch(""), edit("return product", "return a"), edit("a - b", "1 / 0")]
    fewer = replace(task, pass_to_pass=task.pass_to_pass[:1])
    jobs = [(each, patch) for patch in patches for each in (task, fewer)]
    with Scorer(workers=2, cache=tmp_path / "cache") as scorer, ThreadPoolExecutor(8) as pool:
        start = threading.Barrier(8)

        def ask(number):
            start.wait()
            return [run_of(scorer, *jobs[(number // 2 + step) % 8]) for step in range(8)]

        found = list(pool.map(ask, range(8)))
        stats = scorer.stats
    assert (stats.executions, stats.hits) == (8, 56)
    with Scorer(workers=1, cache=tmp_path / "other") as scorer:
        alone = [run_of(scorer, *job) for job in jobs]
    for number, runs in enumerate(found):
        for step, run in enumerate(runs):
            expected = alone[(number // 2 + step) % 8]
            assert {name: each.status for name, each in run.outcomes.items()} == {
                name: each.status for name, each in expected.outcomes.items()
            }


def test_wall_time_counts_whichever_way_it_is_asked_and_what_runs_side_by_side_once(task, edit, tmp_path):
    slow = [edit("product = 0\n", f"import time; time.sleep(0.5); product = 0  # {number}\n") for number in range(6)]

    async def ask(scorer):
        return await asyncio.gather(*(scorer.score_async(task, patch, rewards.tests) for patch in slow[2:4]))

    with Scorer(workers=2, cache=tmp_path / "cache") as scorer:
        passed = []
        for work in (
            lambda: list(scorer.stream([(task, patch) for patch in slow[:2]], rewards.tests)),
            lambda: asyncio.run(ask(scorer)),
            lambda: scorer.score([(task, patch) for patch in slow[4:]], rewards.tests),
        ):
            before, began = scorer.stats.wall_seconds, time.monotonic()
            work()
            passed.append((scorer.stats.wall_seconds - before, time.monotonic() - began))
        before = scorer.stats.wall_seconds
        time.sleep(0.2)
        assert scorer.stats.wall_seconds == before
    for counted, took in passed:
        assert 0.5 < counted <= took + 0.01


def test_what_another_call_stops_is_not_the_candidates_doing(task, edit, tmp_path):
    slow = edit("product = 0\n", "import time; time.sleep(3); product = 0\n")
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer, ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_of, scorer, task, slow)
        for _ in range(2):
            time.sleep(2.0)
            scorer._kill_workers()
        assert future.result().end is End.COMPLETED


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_an_audit_of_no_share_is_refused(share):
    with pytest.raises(UserError, match="audit"):
        Scorer(audit=share)


def test_one_patch_is_scored_in_one_call(task, fix, tmp_path):
    assert score(task, fix, rewards.tests, cache=tmp_path).value == 1.0


# ---------------------------------------------------------------- stopping

LONG = """
import sys, time
from pathlib import Path
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Task, Tree
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.evidence import TestRun

root = Path(sys.argv[1])
base = Tree(root)
before = {"a.py": base.read("a.py")}
task = Task(
    id="t", repository="r", base=base, instruction="", fail_to_pass=("test_a.py::test_a",), pass_to_pass=(), limits=Limits(wall_seconds=120)
)
patches = [Patch.between(before, {"a.py": f"WAIT = {wait}\\nNUMBER = {number}\\n"}) for number, wait in enumerate([0] * 4 + [100] * 2)]
with Scorer(workers=2, sandbox=sys.argv[3], cache=Path(sys.argv[2])) as scorer:
    scorer.gather([(task, patch) for patch in patches], [TestRun], progress=lambda done, total: print(done, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupt", "kill"])
def test_a_stop_at_any_moment_leaves_nothing_and_loses_nothing(write_files, tmp_path, monkeypatch, number):
    tree = write_files({"a.py": "WAIT = 0\n", "test_a.py": "import time\nimport a\ndef test_a(): time.sleep(a.WAIT)\n"})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    sandbox = choose().name
    host = subprocess.Popen(
        [sys.executable, "-c", LONG, str(tree.root), str(tmp_path / "cache"), sandbox],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(scratch)},
    )  # fmt: skip
    for line in host.stdout:
        if line.strip() == "4":
            break
    time.sleep(0.5)
    host.send_signal(number)
    _, errors = host.communicate(timeout=120)
    assert host.returncode != 0
    deadline = time.monotonic() + 120
    while processes_with(str(scratch)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_with(str(scratch))
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
        assert not list(scratch.iterdir())
    with Scorer(workers=1, sandbox=sandbox, cache=tmp_path / "cache") as scorer:
        assert len(scorer._store) == 4
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    made = scratch_folder()  # what the killed process left goes
    assert list(scratch.iterdir()) == [made]


def processes_with(mark):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in path.read_text():
                found.append(path.read_text())
        except OSError:
            continue
    return found
