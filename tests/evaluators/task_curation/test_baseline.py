"""Baselines: stable tests, flaky tests, and the functions that each test executes."""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Limits, TestSuite
from regrade.evaluators.execution.environments import python_for
from regrade.evaluators.execution.worker_environments import WorkerEnvironment
from regrade.evaluators.sandboxes import available, choose
from regrade.evaluators.task_curation.baseline import baseline
from regrade.evaluators.task_curation.baseline_workers import BYTECODE, BaselineWorkers, ReachPart, WorkerSettings

REACH = {
    "subject.py": """\
import functools, subprocess, sys, threading

def in_thread(): return 1
def in_process(): return 1
def cached_inner(): return 1
@functools.cache
def cached(): return cached_inner()
def for_fixture(): return 1
def decorate(function):
    def inner(*arguments):
        return function(*arguments)
    return inner
@decorate
def decorated(): return 1
class Thing:
    def __init__(self): self.numbers = [double(number) for number in (1, 2)]
    @property
    def first(self): return self.numbers[0]
def double(number): return 2 * number
def generator(): yield 1
def unused(): return 1
on_import = double(1)
def halfway():
    yield 1
    yield double(1)
begun = halfway()
next(begun)
""",
    "test_code.py": """\
import subprocess, sys, threading
import pytest
import subject as code

@pytest.fixture(scope="module")
def prepared(): return code.for_fixture()

def test_fixture(prepared): pass
def test_fixture_again(prepared): pass
def test_cached(): assert code.cached() == 1
def test_cached_again(): assert code.cached() == 1
def test_thread():
    thread = threading.Thread(target=code.in_thread)
    thread.start()
    thread.join()
def test_process(): subprocess.run([sys.executable, "-c", "import subject; subject.in_process()"], check=True)
def test_decorated(): assert code.decorated() == 1
def test_thing(): assert code.Thing().first == 2
def test_generator(): assert list(code.generator()) == [1]
def test_begun_on_import(): assert next(code.begun) == 2
""",
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    from regrade.datasets.tasks import Tree

    root = tmp_path_factory.mktemp("repository")
    (root / "subject.py").write_text(REACH["subject.py"])
    (root / "test_code.py").write_text(REACH["test_code.py"])
    return baseline(Tree(root), TestSuite(), sandbox=choose(), runs=1)


@pytest.mark.parametrize(
    ("function", "tests"),
    [
        ("for_fixture", {"fixture", "fixture_again"}),
        ("cached_inner", {"cached", "cached_again"}),
        ("in_thread", {"thread"}),
        ("decorated", {"decorated"}),
        ("decorate", {"decorated"}),
        ("Thing.__init__", {"thing"}),
        ("Thing.first", {"thing"}),
        ("double", {"thing", "begun_on_import"}),
        ("generator", {"generator"}),
        ("halfway", {"begun_on_import"}),
    ],
)
def test_the_reach_of_a_test_is_what_it_executes_by_itself(measured, function, tests):
    found = measured.reach[f"subject.py::{function}"]
    # What starts another process may execute anything there.
    assert {test.partition("::test_")[2] for test in found} == tests | {"process"}


def test_functions_that_run_on_import_are_told(measured):
    assert measured.imported == {"subject.py::double", "subject.py::decorate", "subject.py::halfway"}


def test_functions_that_no_test_executes_have_no_reach(measured):
    assert "subject.py::unused" not in measured.reach
    assert not [function for function in measured.reach if function.startswith("test_code.py")]


PROFILING = {
    "subject.py": "def early(): return 1\ndef late(): return 1\ndef unused(): return 1\n",
    "test_code.py": """\
import cProfile, sys
import subject as code

def test_early(): assert code.early()
def test_late(): assert code.late()
def test_profiler():
    profiler = cProfile.Profile()
    profiler.enable()
    profiler.disable()
    code.late()
def test_profile_function():
    sys.setprofile(lambda *_: None)
    code.late()
def test_monitor():
    if hasattr(sys, "monitoring"):
        for tool in range(6):
            if sys.monitoring.get_tool(tool):
                sys.monitoring.free_tool_id(tool)
    else:
        sys.setprofile(None)
    code.late()
""",
}


def test_a_test_that_ends_the_profiling_keeps_nothing_hidden(write_files):
    reach = baseline(write_files(PROFILING), TestSuite(), sandbox=choose(), runs=1).reach
    ending = {"test_code.py::test_profiler", "test_code.py::test_profile_function", "test_code.py::test_monitor"}
    assert set(reach["subject.py::late"]) == ending | {"test_code.py::test_late"}
    assert "test_code.py::test_monitor" in reach["subject.py::early"], "what can't be watched may execute anything"


IN_HIDING = {
    "subject.py": "def one(): return 1\ndef two(): return 2\n",
    "test_reads.py": """\
import inspect, pathlib, runpy, traceback, os
import subject

def test_text(): assert "return 1" in pathlib.Path(subject.__file__).read_text()
def test_source(): assert "return 1" in inspect.getsource(subject.one)
def test_executes(): exec(compile(open(subject.__file__).read(), "elsewhere", "exec"), {})
def test_runpy(): assert runpy.run_path("../repo/./subject.py" if os.path.isdir("../repo") else "./subject.py")["two"]() == 2
def test_two(): assert subject.two() == 2
""",
    "test_threads.py": """\
import _thread, sys, threading, time
import subject

def wait_for(start):
    done = []
    start(lambda: done.append(subject.two()))
    while not done:
        time.sleep(0.01)

def test_low_level(): wait_for(lambda call: _thread.start_new_thread(call, ()))
def test_unwatched_threads():
    threading.setprofile(None)
    wait_for(lambda call: threading.Thread(target=call).start())
def test_paused():
    profiler = sys.getprofile()
    if profiler is not None:
        profiler.disable()
        subject.two()
        profiler.enable()
    else:
        subject.two()
def test_watched(): wait_for(lambda call: threading.Thread(target=call).start())
def test_one(): assert subject.one() == 1
""",
    "test_processes.py": """\
import multiprocessing
import subject

def test_spawn():
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=subject.two)
    process.start()
    process.join()
    assert process.exitcode == 0
""",
}


@pytest.mark.parametrize("kind", ["bubblewrap", "process"])
def test_what_is_read_or_runs_out_of_sight_is_not_missed(write_files, kind):
    sandbox = available_or_skip(kind)
    found = baseline(write_files(IN_HIDING), TestSuite(), sandbox=sandbox, runs=1)
    reached = {test.split("::test_")[1] for key in ("subject.py", "subject.py::two") for test in found.reach[key]}
    reading, hiding = {"text", "source", "executes", "runpy"}, {"low_level", "unwatched_threads", "paused", "spawn"}
    assert reached >= reading | hiding | {"two", "watched"}
    assert "test_threads.py::test_one" not in found.reach["subject.py::two"]
    assert "test_threads.py::test_watched" not in found.reach["subject.py::one"], "a thread is no reason for doubt"
    assert not found.companions


HIDDEN_AGAIN = {
    "subject.py": "import sys\ndef two(*_): return 2\ndef one(): return 1\n"
    "def tracer(frame, event, argument):\n    two()\n",
    "test_it.py": """\
import sys, threading
import subject

def test_traced():
    before = sys.gettrace()
    sys.settrace(subject.tracer)
    subject.one()
    sys.settrace(before)
def test_audited():
    sys.addaudithook(lambda *_: subject.two())
def test_thread_that_lets_no_profiler_be():
    def work():
        sys.setprofile(None)
        subject.two()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
def test_one(): assert subject.one() == 1
""",
}


def test_what_no_profiler_sees_may_be_anything(write_files):
    found = baseline(write_files(HIDDEN_AGAIN), TestSuite(), sandbox=choose(), runs=1)
    assert {test.split("::test_")[1] for test in found.reach["subject.py::one"]} == {
        "traced", "audited", "thread_that_lets_no_profiler_be", "one"
    }  # fmt: skip


@pytest.mark.parametrize(
    "files",
    [
        {"pytest.ini": "[pytest]\naddopts = --doctest-modules\n"},
        {
            "test_given.py": "from hypothesis import given, strategies as st\n@given(st.integers())\ndef test_given(x): pass\n"
        },
    ],
    ids=["doctest", "hypothesis"],
)
def test_who_reads_all_files_and_means_none_is_no_reason_to_run_everything(write_files, files):
    subject = 'def one():\n    """\n    >>> one()\n    1\n    """\n    return 1\ndef two(): return 2\n'
    files = {
        **files,
        "subject.py": subject,
        "test_it.py": "import subject\ndef test_two(): assert subject.two() == 2\n",
    }
    options = ("-p", "_hypothesis_pytestplugin") if "test_given.py" in files else ()
    found = baseline(write_files(files), TestSuite(options=options), sandbox=choose(), runs=1)
    assert found.unmeasured == ""
    assert found.imported == set()
    assert "test_it.py::test_two" in found.reach["subject.py::two"]
    assert len(found.stable) == 2


def test_a_suite_that_reads_every_file_on_import_says_so(write_files):
    files = {
        "subject.py": "def one(): return 1\n",
        "test_it.py": "import pathlib, subject\nTEXT = pathlib.Path(subject.__file__).read_text()\n"
        "def test_one(): assert subject.one() == 1\n",
    }
    found = baseline(write_files(files), TestSuite(), sandbox=choose(), runs=1)
    assert found.imported == {"subject.py"}
    assert "on import" in found.unmeasured


def available_or_skip(kind):
    if problem := available()[kind]:
        pytest.skip(problem)
    return choose(kind)


IN_COMPANY = {
    "subject.py": "STATE = {}\ndef fill(): STATE['a'] = 1\ndef read(): return STATE['a']\ndef other(): return 2\n",
    "pack/__init__.py": "",
    "pack/part.py": "def inner(): return 3\n",
    "test_order.py": "import subject\ndef test_fill(): subject.fill()\ndef test_read(): assert subject.read() == 1\n"
    "def test_other(): assert subject.other() == 2\n",
    "test_a_first.py": "import subject, pack.part\ndef test_set(): subject.STATE['b'] = subject.other()\n",
    "test_b_last.py": "import subject, pack\ndef test_late(): assert subject.STATE['b'] == 2\n"
    "def test_alone(): assert subject.other() == 2\ndef test_imported_by_another(): assert pack.part.inner() == 3\n",
}


def test_tests_that_do_not_pass_by_themselves_are_told_with_what_they_need(write_files):
    found = baseline(write_files(IN_COMPANY), TestSuite(), sandbox=choose(), runs=1)
    assert len(found.stable) == 7
    assert found.companions == {
        "test_order.py::test_read": "test_order.py",
        "test_b_last.py::test_late": "",
        "test_b_last.py::test_imported_by_another": "",
    }
    assert "test_order.py::test_read" in found.reach["subject.py::fill"], "it depends on what the others execute"
    assert "test_b_last.py::test_alone" not in found.reach["subject.py::fill"]


def test_what_runs_between_collection_and_the_tests_counts_as_imported(write_files):
    hooks = (
        "import pytest, subject\n"
        "@pytest.hookimpl(wrapper=True)\ndef pytest_runtestloop(session):\n    subject.around_all()\n    return (yield)\n"
        "@pytest.hookimpl(wrapper=True)\ndef pytest_runtest_protocol(item):\n    subject.around_each()\n    return (yield)\n"
        "def pytest_sessionfinish(session):\n    subject.after_all()\n"
    )
    names = ("around_all", "around_each", "after_all", "tested")
    files = {
        "subject.py": "".join(f"def {name}(): return 1\n" for name in names),
        "conftest.py": hooks,
        "test_it.py": "import subject\ndef test_it(): assert subject.tested()\ndef test_other(): pass\n",
    }
    found = baseline(write_files(files), TestSuite(), sandbox=choose(), runs=1)
    assert found.imported == {"subject.py::around_all", "subject.py::after_all"}
    assert found.reach["subject.py::around_each"] == ("test_it.py::test_it", "test_it.py::test_other")
    assert found.reach["subject.py::tested"] == ("test_it.py::test_it",)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "a thread"),
        ("SERVER = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)", "another process"),
        ("subprocess.run([sys.executable, '-c', 'import subject'])", "another process"),
        ("subprocess.run(['sh', '-c', f'{sys.executable} -c 0'])", "another process"),
        ("multiprocessing.get_context('spawn').Process(target=int).start()", "another process"),
    ],
)
def test_a_suite_of_which_forks_tell_nothing_is_not_measured(write_files, line, why):
    files = {
        "subject.py": "def one(): return 1\n",
        "test_it.py": f"import multiprocessing, subprocess, sys, threading, time\nimport subject\n{line}\n"
        "def test_one(): assert subject.one() == 1\n",
    }
    found = baseline(write_files(files), TestSuite(), sandbox=choose(), runs=1)
    assert why in found.unmeasured
    assert found.stable == ("test_it.py::test_one",)
    assert found.reach == {}


@pytest.mark.parametrize("command", ["['uname', '-m'], check=True", "['no-such-program']"])
def test_a_suite_that_asks_a_program_what_machine_this_is_is_measured(write_files, command):
    files = {
        "subject.py": "def one(): return 1\n",
        "test_it.py": "import contextlib, subprocess\nimport subject\n"
        f"with contextlib.suppress(FileNotFoundError): subprocess.run({command})\n"
        "def test_one(): assert subject.one() == 1\ndef test_other(): pass\n",
    }
    found = baseline(write_files(files), TestSuite(), sandbox=choose(), runs=1)
    assert found.unmeasured == ""
    assert found.reach == {"subject.py::one": ("test_it.py::test_one",)}


@pytest.mark.slow
def test_a_test_that_does_not_end_where_it_is_watched_is_given_up_soon(write_files):
    """It waits for what happens in the suite alone: for a fork, the other process id is that of nobody who answers."""
    files = {
        "subject.py": "def one(): return 1\n",
        "test_it.py": "import os, sys, time\nimport subject\nPROCESS = os.getpid()\n"
        "def test_waits():\n    while os.getpid() != PROCESS: time.sleep(1)\n"
        "def test_one(): assert subject.one() == 1\n",
    }
    began = time.monotonic()
    found = baseline(write_files(files), TestSuite(), sandbox=choose(), runs=1)
    assert time.monotonic() - began < 300
    assert found.reach["subject.py::one"] == ("test_it.py::test_waits", "test_it.py::test_one")


def test_a_long_suite_is_measured_in_shares(write_files):
    slow = "import time\nimport subject\ndef test_it():\n    time.sleep(1.2)\n    subject.{}()\n"
    files = {"subject.py": "def one(): pass\ndef two(): pass\ndef three(): pass\n", "conftest.py": "import subject\n"}
    files |= {f"test_{name}.py": slow.format(name) for name in ("one", "two", "three")}
    found = baseline(write_files(files), TestSuite(), sandbox=choose(), runs=1, workers=2)
    names = ("one", "two", "three")
    assert found.reach == {f"subject.py::{name}": (f"test_{name}.py::test_it",) for name in names}


def test_stable_flaky_and_failing_tests_are_told_apart(write_files):
    tree = write_files({
        "test_it.py": "import os, pytest, random\n"
        "def test_stable(): pass\ndef test_fails(): assert False\ndef test_skipped(): pytest.skip('no')\n"
        "def test_flaky(): assert int.from_bytes(os.urandom(1), 'big') % 2\n",
        "test_broken.py": "import nothing_like_it\n",
    })  # fmt: skip
    told = []
    found = baseline(
        tree, TestSuite(), sandbox=choose(), runs=12, progress=lambda done, total: told.append((done, total))
    )
    assert found.stable == ("test_it.py::test_stable",)
    assert found.flaky == ("test_it.py::test_flaky",)
    assert found.failing == ("test_it.py::test_fails", "test_it.py::test_skipped")
    assert found.collection_errors == {"test_broken.py": "ModuleNotFoundError: No module named 'nothing_like_it'"}
    assert told == [(number, 13) for number in range(14)]


def test_the_further_runs_import_before_the_fork_what_the_collection_imports_as_those_of_patches_do(write_files):
    tree = write_files({
        "test_it.py": "import sys\nEARLY = {'xmlrpc.client', 'xmlrpc.server'} & set(sys.modules)\nimport xmlrpc.client\n"
        "def test_early(): assert EARLY == {'xmlrpc.client'}\ndef test_stable(): import xmlrpc.server\n",
    })  # fmt: skip
    found = baseline(tree, TestSuite(), sandbox=choose(), runs=4, reach=False)
    assert (found.flaky, found.failing) == (("test_it.py::test_early",), ())
    assert found.outcomes["test_it.py::test_early"].status == "passed"


def test_a_test_whose_id_is_another_one_tomorrow_is_not_stable(write_files):
    tree = write_files({
        "test_it.py": "import datetime, pytest\nclass Thing: pass\n"
        "@pytest.mark.parametrize('value', [str(datetime.date.today()), repr(Thing()), '2001-01-01', '0x10'])\n"
        "def test_value(value): pass\n",
    })  # fmt: skip
    found = baseline(tree, TestSuite(), sandbox=choose(), runs=2)
    assert found.stable == ("test_it.py::test_value[2001-01-01]", "test_it.py::test_value[0x10]")
    assert all(str(datetime.date.today()) in test or "object at 0x" in test for test in found.flaky)
    assert len(found.flaky) >= 2


def test_ids_that_follow_an_order_by_address_are_not_stable(write_files):
    tree = write_files({
        "test_it.py": "import pytest\n"
        "order = sorted(range(10), key=lambda number: hash((number, id(None))))  # as in a set of tuples with None\n"
        "@pytest.mark.parametrize(('number', 'thing'), [(number, object()) for number in order])\n"
        "def test_order(number, thing): assert number\n"
        "@pytest.mark.parametrize('number', [1, 2])\ndef test_number(number): pass\n",
    })  # fmt: skip
    found = baseline(tree, TestSuite(), sandbox=choose(), runs=2)
    assert found.stable == ("test_it.py::test_number[1]", "test_it.py::test_number[2]")
    assert found.failing == ()
    assert len(found.flaky) > 10


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"code.py": ""}, "no test was found"),
        ({"test_a.py": "import nothing_like_it\n"}, "No module named 'nothing_like_it'.*`python_path=FOLDER`"),
        ({"conftest.py": "import nothing_like_it\n", "test_a.py": "def test_a(): pass\n"}, "nothing_like_it"),
        (
            {"pytest.ini": "[pytest]\naddopts = --no-such-option\n", "test_a.py": "def test_a(): pass\n"},
            "--no-such-option",
        ),
        ({"test_a.py": "import os\ndef test_a(): os._exit(1)\n"}, "crashed"),
    ],
)
def test_a_suite_that_can_not_be_run_is_a_mistake(write_files, files, reason):
    with pytest.raises(UserError, match=reason):
        baseline(write_files(files), TestSuite(), sandbox=choose(), runs=1)


def test_the_reach_is_measured_beside_the_further_runs(write_files):
    sandbox, told, starts = choose(), [], []

    class Watched(type(sandbox)):
        def start(self, program):
            starts.append(len(told))
            return super().start(program)

    files = {"subject.py": "def f(): pass\n", "test_it.py": "import time, subject\ndef test_it(): time.sleep(2)\n"}
    watched = Watched()
    baseline(write_files(files), TestSuite(), sandbox=watched, runs=3, workers=2, progress=lambda *s: told.append(s))
    assert len(starts) == 2
    assert starts[1] == 2  # when only the first run was done
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.slow
def test_many_short_tests_of_one_file_are_measured_in_parts_with_the_same_result(write_files):
    tests = (
        "import pytest, subject\n"
        "@pytest.mark.parametrize('number', range(210))\n"
        "def test_it(number): (subject.odd if number % 2 else subject.even)(number)\n"
        "SEEN = []\n"
        "def test_first(): SEEN.append(subject.first())\n"
        "def test_second(): assert SEEN\n"
    )
    code = "def odd(n): pass\ndef even(n): pass\ndef first(): return 1\n"
    tree, parts, sandbox = write_files({"subject.py": code, "test_it.py": tests}), [], choose()

    class Watched(type(sandbox)):
        def start(self, program):
            parts.append(program)
            return super().start(program)

    whole = baseline(tree, TestSuite(), sandbox=Watched(), runs=2, workers=1)
    assert len(parts) == 2
    divided = baseline(tree, TestSuite(), sandbox=Watched(), runs=2, workers=2)
    assert len(parts) == 2 + 2
    assert (divided.reach, divided.imported, divided.companions) == (whole.reach, whole.imported, whole.companions)
    assert divided.companions == {"test_it.py::test_second": "test_it.py"}
    assert set(divided.reach["subject.py::first"]) == {"test_it.py::test_first", "test_it.py::test_second"}
    odd = {f"test_it.py::test_it[{number}]" for number in range(1, 210, 2)}
    assert set(divided.reach["subject.py::odd"]) == odd | {"test_it.py::test_second"}  # it needs the tests before it


def test_an_error_of_a_run_ends_the_jobs_that_wait(write_files, tmp_path):
    environment = WorkerEnvironment(choose(), Path(sys.executable), bytecode=tmp_path / BYTECODE)
    settings = WorkerSettings(environment=environment, scratch=tmp_path, limits=Limits())

    def fails(_report):
        time.sleep(0.5)
        raise UserError("a run failed")

    began = time.monotonic()
    with (
        BaselineWorkers(settings, write_files({}), TestSuite()) as workers,
        pytest.raises(UserError, match="a run failed"),
    ):
        list(workers.finish([fails, *[lambda _: time.sleep(0.1)] * 100], 101, threads=1))
    assert time.monotonic() - began < 20


def test_an_error_of_a_run_kills_the_measurement(write_files, tmp_path):
    hangs = "import time\ndef test_it():\n    time.sleep(500)\n"
    environment = WorkerEnvironment(choose(), python_for((), tmp_path), bytecode=tmp_path / BYTECODE)
    settings = WorkerSettings(environment=environment, scratch=tmp_path, limits=Limits(wall_seconds=600.0))
    (tmp_path / BYTECODE).mkdir(mode=0o777)

    def fails(_report):
        time.sleep(2)
        raise UserError("a run failed")

    began = time.monotonic()
    with BaselineWorkers(settings, write_files({"test_it.py": hangs}), TestSuite()) as workers:
        jobs = [fails, lambda _: workers.measure(ReachPart(("test_it.py",)), {"test_it.py::test_it": 1.0}, ())]
        with pytest.raises(UserError, match="a run failed"):
            list(workers.finish(jobs, 2, threads=2))
    assert time.monotonic() - began < 60
