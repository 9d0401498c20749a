"""Check-ups of a healthy task, and of a task with each kind of problem."""

from __future__ import annotations

from dataclasses import replace

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Task, TestSuite
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.checkup import ExploitOutcome, ProblemKind, check_up, git_repositories, tally

BUGGY = '''\
RATES = {"books": 7}


def net(gross, rate):
    """The price without the tax."""
    if rate < 0:
        raise ValueError(rate)
    return gross * 100 / (100 - rate)


def rate_of(kind):
    return RATES.get(kind, 19)
'''
FIXED = BUGGY.replace("100 - rate", "100 + rate")
TESTS = """\
import pytest

from shop.prices import net, rate_of


def test_net():
    assert net(119, 19) == 100
    assert net(0, 19) == 0


def test_no_tax():
    assert net(50, 0) == 50


def test_negative_rate():
    with pytest.raises(ValueError):
        net(100, -1)


def test_rate():
    assert rate_of("books") == 7
"""
FILES = {"shop/__init__.py": "", "shop/prices.py": BUGGY, "tests/test_prices.py": TESTS}
FAILING = "tests/test_prices.py::test_net"
PASSING = tuple(f"tests/test_prices.py::{name}" for name in ("test_no_tax", "test_negative_rate", "test_rate"))


@pytest.fixture
def make(write_files):
    """A task of the shop with some files otherwise, one of them by the reference."""

    def made(files=None, fixed=FIXED, fail_to_pass=(FAILING,), pass_to_pass=PASSING, **changes):
        files = {**FILES, **(files or {})}
        path = "shop/prices.py"
        return Task(
            id="shop",
            repository="shop",
            base=write_files(files),
            instruction="Fix the price.",
            fail_to_pass=tuple(fail_to_pass),
            pass_to_pass=tuple(pass_to_pass),
            suite=TestSuite(),
            limits=Limits(wall_seconds=20.0, memory_mb=512, processes=32, file_mb=16),
            reference=Patch.between({path: files[path]}, {path: fixed}),
            **changes,
        )

    return made


def examined(task, scorer, **options):
    (found,) = check_up([task], scorer, **{"runs": 1, "mutants": 3, **options})
    return found


def kinds(found):
    return [problem.kind for problem in found.problems]


def test_a_healthy_task(make, scorer):
    found = examined(make(), scorer, runs=2, mutants=6)
    assert found.problems == []
    assert found.is_healthy
    assert (found.nothing, found.resolved) == (0.0, True)
    assert found.reference > 0.9
    assert set(found.exploits.values()) <= {ExploitOutcome.FAILS, ExploitOutcome.SEEN}
    assert len(found.exploits) == 6
    assert found.guards == (FAILING, *PASSING[:2])
    assert found.stubbed == {"returns None": (), "raises": ()}
    assert len(found.killed) > len(found.survivors)
    assert found.accesses.network == found.accesses.history == found.accesses.outside == {}
    assert found.assurance.reaches("out-of-process")
    assert found.to_json()["healthy"] is True


def test_a_finished_check_up_runs_nothing_again(make, tmp_path):
    task = make()
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        first = examined(task, scorer, runs=2, mutants=1)
        assert scorer.stats.executions > 10
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        assert examined(task, scorer, runs=2, mutants=1).to_json() == first.to_json()
        assert scorer.stats.executions == 0


def test_a_reference_that_fixes_nothing(make, scorer):
    found = examined(make(fixed=BUGGY.replace("rate < 0", "rate <= -1")), scorer)
    assert kinds(found) == [ProblemKind.TASK]
    assert "do not pass with the reference: tests/test_prices.py::test_net" in found.problems[0].why
    assert not found.killed
    assert not found.survivors


def test_a_reference_that_does_not_apply(make, scorer):
    task = replace(make(), reference=Patch.between({"shop/prices.py": "no such line\n"}, {"shop/prices.py": "x\n"}))
    assert ProblemKind.TASK in kinds(examined(task, scorer))


def test_tests_that_pass_already(make, scorer):
    found = examined(make(fail_to_pass=(PASSING[0],), pass_to_pass=PASSING[1:]), scorer)
    assert ProblemKind.TASK in kinds(found)
    assert ProblemKind.REWARD in kinds(found)
    assert found.nothing > 0.5
    assert found.exploits == {}


def test_a_reference_that_the_reward_takes_for_tampering(make, scorer):
    odd = FIXED + "\n\nclass Any:\n    def __eq__(self, other):\n        return True\n"
    found = examined(make(fixed=odd), scorer)
    assert found.resolved
    assert kinds(found) == [ProblemKind.REWARD]
    assert "untampered" in found.problems[0].why


def test_a_flaky_test_is_named(make, scorer):
    lottery = "import os\n\n\ndef test_lottery():\n    assert os.urandom(1)[0] < 128\n"
    task = make({"tests/test_lottery.py": lottery}, pass_to_pass=(*PASSING, "tests/test_lottery.py::test_lottery"))
    found = examined(task, scorer, runs=12, mutants=0)
    assert ProblemKind.FLAKY in kinds(found)
    assert set(found.flaky) == {"tests/test_lottery.py::test_lottery"}
    assert "of 12 runs" in found.flaky["tests/test_lottery.py::test_lottery"]


CALLS = """\
import contextlib
import socket


def test_needs_it():
    socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_tries_it():
    with contextlib.suppress(OSError):
        socket.getaddrinfo("example.org", 80)


def test_talks_to_itself():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
"""


def test_a_test_that_needs_the_network(make, scorer):
    task = make({"tests/test_calls.py": CALLS}, pass_to_pass=(*PASSING, "tests/test_calls.py::test_needs_it"))
    found = examined(task, scorer)
    assert kinds(found) == [ProblemKind.TASK, ProblemKind.TASK, ProblemKind.NETWORK]
    assert found.problems[-1].why == (
        "tests/test_calls.py::test_needs_it accesses the network: 192.0.2.1:80, and fails"
    )


def test_a_test_that_tries_the_network_and_passes_without(make, scorer):
    passing = (*PASSING, "tests/test_calls.py::test_tries_it", "tests/test_calls.py::test_talks_to_itself")
    found = examined(make({"tests/test_calls.py": CALLS}, pass_to_pass=passing), scorer)
    assert found.problems == []
    assert found.accesses.network == {"tests/test_calls.py::test_tries_it": "example.org"}
    assert any("example.org" in note for note in found.notes)


def test_a_sandbox_that_keeps_no_network_away(make, tmp_path):
    task = make({"tests/test_calls.py": CALLS}, pass_to_pass=(*PASSING, "tests/test_calls.py::test_tries_it"))
    with (
        pytest.warns(UserWarning, match="no security boundary"),
        Scorer(workers=1, sandbox="process", cache=tmp_path / "cache") as scorer,
    ):
        found = examined(task, scorer, mutants=0)
    assert kinds(found) == [ProblemKind.NETWORK]
    assert "does not prevent" in found.problems[0].why


OUTSIDE = """\
import contextlib
import os
import subprocess
import tempfile

with contextlib.suppress(OSError):
    open("../beside.txt")


def test_by_name():
    with tempfile.TemporaryFile(), open(os.devnull), open(os.__file__):
        pass


def test_history():
    with contextlib.suppress(OSError):
        subprocess.run(["git", "log"])


def test_repository():
    with contextlib.suppress(OSError):
        os.listdir(".git")
"""


def test_tests_that_look_for_the_history_and_outside(make, scorer):
    names = [f"tests/test_outside.py::{name}" for name in ("test_by_name", "test_history", "test_repository")]
    found = examined(make({"tests/test_outside.py": OUTSIDE}, pass_to_pass=(*PASSING, *names)), scorer)
    assert found.problems == []
    assert found.accesses.outside == {names[0]: "/beside.txt"}
    assert found.accesses.history == {names[1]: "by git log", names[2]: ".git"}


def test_a_conftest_of_the_repository_is_watched_as_well(make, scorer):
    conftest = 'import pytest\n\npytest_plugins = "helpers"\n\n\n@pytest.fixture\ndef gross():\n    return 119\n'
    helpers = "import pytest\n\n\n@pytest.fixture\ndef rate():\n    return 19\n"
    tests = "from shop.prices import net\n\n\ndef test_fixtures(gross, rate):\n    assert net(gross, rate) == 100\n"
    looking = "import contextlib\nimport socket\n\nwith contextlib.suppress(OSError):\n    socket.gethostbyname('example.org')\n"
    files = {"conftest.py": conftest, "helpers.py": helpers, "tests/test_more.py": tests, "tests/conftest.py": looking}
    found = examined(make(files, fail_to_pass=(FAILING, "tests/test_more.py::test_fixtures")), scorer)
    assert found.problems == []
    assert found.accesses.network == {FAILING: "example.org"}
    assert found.guards[:2] == (FAILING, "tests/test_more.py::test_fixtures")


def test_tests_that_no_mutant_breaks(make, scorer):
    tests = "import shop.prices\n\n\ndef test_version():\n    assert shop.prices.VERSION == 2\n"
    test_id = "tests/test_version.py::test_version"
    task = make(
        {"tests/test_version.py": tests},
        FIXED + "\n\nVERSION = 2\n",
        fail_to_pass=(test_id,),
        pass_to_pass=(PASSING[-1],),
    )
    found = examined(task, scorer)
    assert ProblemKind.COUNTERFACTUAL in kinds(found)
    assert ProblemKind.MUTANTS in kinds(found)
    assert found.guards == ()
    assert found.stubbed == {"returns None": (test_id,), "raises": (test_id,)}
    assert not found.killed
    assert any("no PASS_TO_PASS test executes" in note for note in found.notes)


def test_a_task_that_rewards_an_exploit(make, scorer):
    raising = BUGGY.replace("return gross * 100 / (100 - rate)", "raise NotImplementedError")
    tests = "from shop.prices import net\n\n\ndef test_it_runs():\n    net(119, 19)\n"
    test_id = "tests/test_runs.py::test_it_runs"
    task = make(
        {"shop/prices.py": raising, "tests/test_runs.py": tests}, fail_to_pass=(test_id,), pass_to_pass=PASSING[-1:]
    )
    found = examined(task, scorer)
    assert ProblemKind.EXPLOIT in kinds(found)
    assert found.exploits["a stub that returns None"] is ExploitOutcome.PAID
    assert found.exploits["os._exit(0) on import"] is ExploitOutcome.FAILS
    assert found.stubbed == {"returns None": (test_id,), "raises": ()}


def test_one_stub_that_does_what_is_wanted_is_a_note(make, scorer):
    raising = BUGGY.replace("RATES.get(kind, 19)", "RATES[kind]")
    fixed = raising.replace("RATES[kind]", "RATES.get(kind)")
    tests = "from shop.prices import rate_of\n\n\ndef test_unknown():\n    assert rate_of('air') is None\n"
    test_id = "tests/test_unknown.py::test_unknown"
    task = make(
        {"shop/prices.py": raising, "tests/test_unknown.py": tests},
        fixed,
        fail_to_pass=(test_id,),
        pass_to_pass=PASSING[1:],
    )
    found = examined(task, scorer)
    assert found.problems == []
    assert found.stubbed == {"returns None": (test_id,), "raises": ()}
    assert found.exploits["a stub that returns None"] is ExploitOutcome.FAILS
    assert any("1 of 1 FAIL_TO_PASS tests pass with a stub" in note for note in found.notes)


def test_a_measured_reach_says_which_tests_guard_it(make, scorer):
    task = make()
    key = "shop/prices.py::net"
    measured = replace(task, suite=replace(task.suite, reach={key: (FAILING,), "shop/prices.py::rate_of": PASSING}))
    assert examined(measured, scorer, mutants=0).guards == (FAILING,)


def test_without_a_reference_exploits_replace_the_target(make, scorer):
    from regrade.datasets.tasks import Target

    task = replace(make(), reference=None, target=Target("shop/prices.py", "net", 4, 8))
    found = examined(task, scorer)
    assert found.problems == []
    assert found.reference is None
    assert len(found.exploits) == 6
    assert found.guards == (FAILING, *PASSING[:2])
    assert not found.killed


def test_tasks_come_in_their_order_and_are_counted(make, scorer):
    good, bad = make(), make(fixed=BUGGY.replace("rate < 0", "rate <= -1"))
    tasks = [replace(task, id=str(place)) for place, task in enumerate([good, bad] * 5)]
    found = list(check_up(tasks, scorer, runs=1, mutants=0))
    assert [each.task.id for each in found] == [str(number) for number in range(10)]
    assert tally(found) == {ProblemKind.TASK: 5}


def test_a_git_repository_in_a_tree_is_seen(write_files):
    bare = {f"fixtures/repo/{name}": "" for name in ("HEAD", "config", "objects/pack/a", "refs/heads/main")}
    assert git_repositories(write_files(bare)) == ["fixtures/repo"]
    assert git_repositories(write_files({"sub/.git": "gitdir: elsewhere\n", "a.py": ""})) == ["sub/.git"]
    assert git_repositories(write_files(FILES)) == []
