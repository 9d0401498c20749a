"""The warm worker: outcomes of tests, every kind of ending, and no leftovers for the next candidate."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import venv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.tasks import Limits, TestSuite
from regrade.evaluators import sandboxes
from regrade.evaluators.execution.records import ImportRecord
from regrade.evaluators.execution.replies import collection_errors, ending, statuses
from regrade.evaluators.execution.warm_start import are_conftests_late, prepare_suite
from regrade.evaluators.execution.worker import UNPREPARED, Reply, Request, Worker
from regrade.evaluators.sandboxes import Sandbox, choose
from regrade.rewards.evidence import End

LIMITS = Limits(wall_seconds=20.0, memory_mb=400, processes=24, file_mb=8)
SHORT = Limits(wall_seconds=1.0, memory_mb=400, processes=24, file_mb=8)


KINDS = [
    "bubblewrap",
    pytest.param("docker", marks=pytest.mark.docker),
    "podman",
    "gvisor",
    "process",
]


def in_sandbox(sandbox: Sandbox, scratch: Path) -> Iterator[Worker]:
    scratch.chmod(0o755)
    with Worker(sandbox, Path(sys.executable), scratch, limits=LIMITS) as worker:
        yield worker


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """In the preferred sandbox of this machine."""
    yield from in_sandbox(choose(), tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module", params=KINDS)
def any_worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """In each kind of sandbox."""
    yield from in_sandbox(working(request.param), tmp_path_factory.mktemp("scratch"))


def working(name: str) -> Sandbox:
    sandbox = sandboxes.KINDS[name]()
    if problem := sandbox.problem():
        pytest.skip(problem)
    return sandbox


def runner(worker, write_files):
    def run_file(text, limits=LIMITS, **request):
        tree = write_files({"test_it.py": textwrap.dedent(text)})
        return worker.run(tree, Request(suite=TestSuite(), limits=limits, **request))

    return run_file


@pytest.fixture
def run(worker, write_files):
    """Run one test file in the preferred sandbox."""
    return runner(worker, write_files)


@pytest.fixture
def run_anywhere(any_worker, write_files):
    """Run one test file in each kind of sandbox."""
    return runner(any_worker, write_files)


def named(reply):
    return {test.partition("::")[2]: outcome.status.value for test, outcome in statuses(reply).items()}


def test_every_outcome_is_distinguished(run):
    reply = run("""
        import unittest
        import pytest

        def test_passes(): pass
        def test_fails(): assert 1 == 2
        def test_skips(): pytest.skip("no")
        @pytest.mark.xfail
        def test_expected_to_fail(): assert False
        @pytest.mark.xfail(strict=True)
        def test_unexpectedly_passes(): pass
        @pytest.fixture
        def broken(): raise RuntimeError("broken")
        def test_error_before(broken): pass
        @pytest.fixture
        def breaking():
            yield
            raise RuntimeError("afterwards")
        def test_error_after(breaking): pass
        class TestOld(unittest.TestCase):
            def test_sub(self):
                for number in (1, 2):
                    with self.subTest(number=number):
                        self.assertEqual(number, 1)
    """)
    assert named(reply) == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_skips": "skipped",
        "test_expected_to_fail": "xfailed",
        "test_unexpectedly_passes": "failed",
        "test_error_before": "error",
        "test_error_after": "error",
        "TestOld::test_sub": "failed",
    }
    assert ending(reply, 20) == (End.COMPLETED, "")


def test_a_failure_is_explained_by_its_line_and_error(run):
    reply = run("""
        def check(value):
            assert value == 2, object()

        def test_it():
            check(1)
    """)
    message = statuses(reply)["test_it.py::test_it"].message
    assert message.startswith("test_it.py:3: assert value == 2, object()\nAssertionError: <object object at 0x...>")


def test_a_failing_doctest_is_explained_by_its_example_and_what_it_gave(worker, write_files):
    text = """
        def double(number):
            '''Twice.

            >>> double(2)
            5
            '''
            return 2 * number

        def fail(number):
            '''
            >>> fail(1)
            1
            '''
            raise KeyError(number)
    """
    tree = write_files({"shop.py": textwrap.dedent(text), "pytest.ini": "[pytest]\naddopts = --doctest-modules\n"})
    outcomes = statuses(worker.run(tree, Request(suite=TestSuite(), limits=LIMITS)))
    assert outcomes["shop.py::shop.double"].message == "shop.py:5: double(2)\nexpected '5', got '4'"
    assert outcomes["shop.py::shop.fail"].message == "shop.py:12: fail(1)\nKeyError: 1"


def test_a_file_that_fails_to_collect_has_a_reason_and_the_others_run(worker, write_files):
    tree = write_files(
        {"test_a.py": "import nothing_like_it\n", "test_b.py": "def test_b(): pass\n", "test_c.py": "(\n"}
    )
    reply = worker.run(tree, Request(suite=TestSuite(), limits=LIMITS))
    errors = collection_errors(reply)
    assert errors["test_a.py"] == "ModuleNotFoundError: No module named 'nothing_like_it'"
    assert "SyntaxError" in errors["test_c.py"]
    assert named(reply) == {"test_b": "passed"}
    assert ending(reply, 20)[0] is End.COMPLETED


def test_only_the_selected_tests_run(run):
    reply = run("def test_a(): pass\ndef test_b(): pass\n", select=frozenset({"test_it.py::test_b"}))
    assert named(reply) == {"test_b": "passed"}


ENDINGS = {
    "leaves in a test": (
        "import os\ndef test_it(): os._exit(0)",
        End.CRASHED,
        "exited with status 0 before it reported a result",
    ),
    "leaves on import": ("import sys\nsys.exit(0)", End.CRASHED, "SystemExit: 0"),
    "kills itself": ("import os\ndef test_it(): os.kill(os.getpid(), 9)", End.CRASHED, "SIGKILL"),
    "faults": ("import ctypes\ndef test_it(): ctypes.string_at(0)", End.CRASHED, "SIGSEGV"),
    "interrupts": ("def test_it(): raise KeyboardInterrupt", End.CRASHED, "status 2"),
    "closes everything": (
        "import os\ndef test_it():\n    os.closerange(0, 100)",
        End.CRASHED,
        "before it reported a result",
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_an_early_exit_is_no_pass(run_anywhere, name):
    text, expected, detail = ENDINGS[name]
    reply = run_anywhere(f"{text}\ndef test_later(): pass\n")
    end, why = ending(reply, 20)
    assert end is expected
    assert detail in why
    assert "test_later" not in named(reply)


@pytest.mark.parametrize(
    "text",
    [
        "def test_it():\n    while True: pass",
        "import time\ndef test_it(): time.sleep(100)",
        "import signal\ndef test_it():\n    signal.alarm(0)\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass",
    ],
    ids=["spins", "sleeps", "catches everything"],
)
def test_a_hang_is_stopped_from_outside_and_earlier_records_remain(run_anywhere, text):
    started = time.monotonic()
    reply = run_anywhere(f"def test_first(): pass\n{text}\n", SHORT)
    end, why = ending(reply, 1.0)
    assert end is End.TIMEOUT
    assert why.startswith("stopped at the limit of 1 s")
    assert named(reply) == {"test_first": "passed"}
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (30.2, "stopped at the limit of 30 s"),
        (61.4, "stopped at the limit of 30 s, 61 s after its start: what a busy"),
    ],
)
def test_a_hang_is_reported_with_its_limit_and_with_a_longer_duration(passed, words):
    end, why = ending(Reply(status=-9, stopped="timeout", records=(), output="", seconds=passed, cpu_seconds=1.0), 30.0)
    assert end is End.TIMEOUT
    assert why.startswith(words)
    assert ("busy machine" in why) is (passed > 40)


def test_a_hang_with_busy_processes_is_stopped_in_time(run_anywhere):
    """Its processes occupy the cores that its main thread waits for: this wait counts."""
    started = time.monotonic()
    reply = run_anywhere("""
        import os
        def test_it():
            for _ in range(5):
                if os.fork() == 0: break
            while True: pass
        """, SHORT)  # fmt: skip
    assert reply.stopped == "timeout"
    assert time.monotonic() - started < 200


def test_memory_is_limited(run_anywhere):
    reply = run_anywhere("def test_it():\n    data = bytearray(10 ** 9)\ndef test_later(): pass\n")
    assert named(reply) == {"test_it": "failed", "test_later": "passed"}


def test_memory_of_many_processes_is_limited_together(run_anywhere, any_worker):
    if not any_worker.isolated:
        pytest.skip("a plain process has no view of all processes of a candidate")
    reply = run_anywhere("""
        import multiprocessing, time

        def eat(_):
            data = bytearray(150 << 20)
            time.sleep(10)

        def test_it():
            with multiprocessing.get_context("fork").Pool(6) as pool:
                pool.map(eat, range(6))
    """)
    assert ending(reply, 20)[0] is End.MEMORY


def test_files_are_limited(run_anywhere):
    reply = run_anywhere("""
        def test_it(tmp_path):
            with open(tmp_path / "big", "wb") as file:
                for _ in range(100):
                    file.write(bytes(1 << 20))
        def test_later(): pass
    """)
    assert named(reply) == {"test_it": "failed", "test_later": "passed"}


def test_a_flood_of_output_has_no_effect(run_anywhere):
    reply = run_anywhere("""
        import os
        def test_it(capfd):
            with capfd.disabled():
                os.write(1, b"x" * (4 << 20))
        def test_later(): print("\\u2028 PASSED", "y" * 100000)
    """)
    assert named(reply) == {"test_it": "passed", "test_later": "passed"}
    assert len(reply.output) < 10_000
    run_anywhere("""
        import os
        def test_it():
            while True:
                os.write(1, b"x" * (1 << 20))
    """)
    assert named(run_anywhere("def test_it(): pass")) == {"test_it": "passed"}


def test_forged_lines_on_the_output_are_not_results(run_anywhere):
    reply = run_anywhere("""
        import json, os
        def test_it():
            for descriptor in (0, 1, 2):
                try:
                    os.write(descriptor, (json.dumps(["test", "test_it.py::test_more", "passed", 0, ""]) + "\\n").encode())
                except OSError: pass
            assert False
    """)
    assert named(reply) == {"test_it": "failed"}


def test_a_fork_bomb_ends_with_its_sandbox(run_anywhere, any_worker):
    if not any_worker.isolated:
        pytest.skip("for this user the plain process does not limit the number of processes")
    reply = run_anywhere(
        """
        import os
        def test_it():
            while True:
                try:
                    os.fork()
                except OSError: pass
    """,
        SHORT,
    )
    assert reply.stopped in ("timeout", "memory", "processes")
    assert named(run_anywhere("def test_it(): pass")) == {"test_it": "passed"}


def test_the_number_of_processes_is_limited(run_anywhere, any_worker):
    if not any_worker.isolated:
        pytest.skip("for this user the plain process does not limit the number of processes")
    reply = run_anywhere(
        """
        import os, time
        def test_it():
            for _ in range(60):
                if os.fork() == 0:
                    time.sleep(15)
                    os._exit(0)
            time.sleep(15)
    """,
        replace(LIMITS, memory_mb=4000),
    )
    assert named(reply) == {"test_it": "failed"} or reply.stopped == "processes"


def test_nothing_is_left_for_the_next_candidate(run_anywhere, any_worker):
    run_anywhere("""
        import os, sys, time, tempfile
        from pathlib import Path

        def test_leaves_everything_behind():
            Path("left.py").write_text("x = 1")
            Path("test_it.py").write_text("def test_planted(): pass")
            Path(tempfile.gettempdir(), "left").write_text("x")
            folder = Path(tempfile.gettempdir(), "closed")
            folder.mkdir()
            (folder / "x").write_text("x")
            folder.chmod(0)
            if os.fork() == 0:  # a daemon, twice removed
                os.setsid()
                if os.fork() == 0:
                    for descriptor in range(100):
                        try: os.close(descriptor)
                        except OSError: pass
                    while True:
                        try: Path("daemon.txt").write_text("x")
                        except OSError: pass
                        time.sleep(0.01)
                os._exit(0)
            time.sleep(0.2)
            assert Path("daemon.txt").exists()
    """)
    reply = run_anywhere(
        """
        import os, tempfile, time
        from pathlib import Path
        def test_clean():
            time.sleep(0.1)
            assert sorted(os.listdir()) == ["test_it.py"]
            assert not Path(tempfile.gettempdir(), "left").exists() or not ALONE
            assert not Path(tempfile.gettempdir(), "closed").exists() or not ALONE
    """.replace("ALONE", str(any_worker.isolated))
    )
    assert named(reply) == {"test_clean": "passed"}, statuses(reply)


def test_one_start_serves_many_candidates(run_anywhere, any_worker):
    run_anywhere("def test_it(): pass")
    starts = any_worker.starts
    for _ in range(3):
        assert named(run_anywhere("def test_it(): pass")) == {"test_it": "passed"}
    assert any_worker.starts == starts


def test_modules_of_the_tree_come_first_for_subprocesses_too(worker, write_files):
    tree = write_files({
        "src/package/__init__.py": "name = 'mine'\n",
        "tests/test_it.py": "import package, subprocess, sys\n"
        "def test_it():\n    assert package.name == 'mine'\n"
        "    code = 'import package; print(package.name)'\n"
        "    assert subprocess.check_output([sys.executable, '-c', code], text=True, cwd='/') == 'mine\\n'\n",
    })  # fmt: skip
    reply = worker.run(tree, Request(suite=TestSuite(python_path=("src", ".")), limits=LIMITS))
    assert named(reply) == {"test_it": "passed"}


def test_a_repository_may_use_the_names_of_this_package(worker, write_files):
    tree = write_files({
        "regrade/__init__.py": "here = True\n",
        "recorder.py": "here = True\n",
        "test_it.py": "import recorder, regrade\ndef test_it():\n    assert regrade.here and recorder.here\n",
    })  # fmt: skip
    assert named(worker.run(tree, Request(suite=TestSuite(), limits=LIMITS))) == {"test_it": "passed"}


def test_imports_are_reported_one_by_one(worker, write_files):
    tree = write_files({"good.py": "", "bad.py": "raise ValueError('bad')", "leaves.py": "import sys; sys.exit(3)"})
    reply = worker.run(
        tree, Request(suite=TestSuite(), limits=LIMITS, kind="imports", modules=("bad", "good", "leaves"))
    )
    assert reply.of(ImportRecord) == [
        ImportRecord("bad", "bad.py:1: ValueError: bad"),
        ImportRecord("leaves", "leaves.py:1: SystemExit: 3"),
    ]
    assert ending(reply, 20)[0] is End.COMPLETED


# ---------------------------------------------------------------- prepared sessions

SESSION_FILES = {
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '-ra --strict-markers'\nmarkers = ['quick']\n",
    "conftest.py": "import pytest\n\n@pytest.fixture\ndef top(): return 1\n",
    "tests/conftest.py": "import pytest\nimport code_under_test\n\n@pytest.fixture\ndef inner(top): return top + 1\n"
    "def pytest_collection_modifyitems(items): items.reverse()\n",
    "code_under_test.py": "VALUE = 2\n",
    "tests/test_a.py": "import pytest, code_under_test\n@pytest.mark.quick\ndef test_a(inner):\n"
    "    print('a' * 10)\n    assert inner == code_under_test.VALUE\n",
    "tests/test_b.py": "def test_captured(capfd):\n    print('b')\n    assert capfd.readouterr().out == 'b\\n'\n"
    "def test_cwd(request):\n    assert str(request.config.rootpath) == str(request.config.invocation_params.dir)\n",
}


@pytest.fixture
def prepare(write_files, tmp_path):
    """Creates a worker, a tree and the preparation of its suite."""
    sandbox = working("bubblewrap")
    for name in ("scratch", "bytecode", "making"):
        (tmp_path / name).mkdir()
    tmp_path.chmod(0o755)
    with contextlib.ExitStack() as workers:

        def make(files, python=Path(sys.executable)):
            tree, bytecode = write_files(files), tmp_path / "bytecode"
            preparation = prepare_suite(
                sandbox, python, tree, TestSuite(), LIMITS, bytecode, tmp_path / "making", f"digest of {sorted(files)}"
            )
            worker = Worker(sandbox, python, tmp_path / "scratch", bytecode)
            return workers.enter_context(worker), tree, preparation

        yield make


@pytest.fixture
def prepared(prepare):
    return prepare(SESSION_FILES)


def test_a_prepared_session_has_the_same_outcomes_as_an_unprepared_one(prepared):
    worker, tree, preparation = prepared
    assert preparation.session
    assert preparation.configuration == "/repo/pyproject.toml"
    request = Request(suite=TestSuite(), limits=LIMITS, paths=("tests/test_a.py", "tests/test_b.py"))
    changed = tree.with_files({"code_under_test.py": "VALUE = 3\n"})
    broken = tree.with_files({"code_under_test.py": "VALUE = \n"})
    for variant in (tree, changed, broken, tree, changed):
        plain = worker.run(variant, request)
        fast = worker.run(variant, request, preparation)
        assert statuses(fast) == statuses(plain)
        assert collection_errors(fast) == collection_errors(plain)
        assert ending(fast, 20)[0] is ending(plain, 20)[0]
    assert named(worker.run(changed, request, preparation))["test_a"] == "failed"
    assert worker.starts == 1


def test_a_conftest_that_must_be_imported_early_rules_out_a_session(write_files):
    tree = write_files({"conftest.py": "def pytest_addoption(parser):\n    parser.addoption('--x')\n"})
    assert not are_conftests_late(tree)


def test_byte_code_of_the_pristine_tree_is_used_and_that_of_changed_files_is_not(prepared, tmp_path):
    worker, tree, preparation = prepared
    compiled = list((tmp_path / "bytecode" / preparation.bytecode).rglob("*.pyc"))
    assert {path.name.split(".")[0] for path in compiled} >= {"code_under_test", "test_a", "conftest"}
    request = Request(suite=TestSuite(), limits=LIMITS, paths=("tests/test_a.py",))
    assert named(worker.run(tree.with_files({"code_under_test.py": "VALUE = 3\n"}), request, preparation)) == {
        "test_a": "failed"
    }
    assert named(worker.run(tree, request, preparation)) == {"test_a": "passed"}


IMPORTS_EARLY = """
import sys
EARLY = "xmlrpc.client" in sys.modules
import xmlrpc.client, code_under_test
def test_early(): assert EARLY
def test_own(): assert code_under_test.TIMES == 1
"""


def test_modules_from_outside_the_tree_are_imported_before_the_fork(prepare):
    files = {"code_under_test.py": "TIMES = 1\n", "test_it.py": IMPORTS_EARLY}
    worker, tree, preparation = prepare(files)
    assert "xmlrpc.client" in preparation.modules
    assert "code_under_test" not in preparation.modules
    request = Request(suite=TestSuite(), limits=LIMITS, paths=("test_it.py",))
    assert named(worker.run(tree, request)) == {"test_early": "failed", "test_own": "passed"}
    for shared in (preparation, replace(preparation, session="")):
        assert named(worker.run(tree, request, shared)) == {"test_early": "passed", "test_own": "passed"}


def test_a_library_that_starts_threads_is_not_imported_before_the_fork(prepare, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    for name in ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"):
        shutil.copytree(Path(pytest.__file__).parents[1] / name, packages / name)
    shutil.copy(Path(pytest.__file__).parents[1] / "py.py", packages)
    (packages / "threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    _, _, preparation = prepare(
        {"test_it.py": "import threaded, xmlrpc.client\ndef test_it(): pass\n"}, environment / "bin/python"
    )
    assert "xmlrpc.client" in preparation.modules
    assert "threaded" not in preparation.modules


def test_a_module_of_the_tree_shadows_one_that_was_imported_early(prepare):
    files = {
        "statistics.py": "mine = True\n",
        "test_it.py": "import statistics\ndef test_it(): assert statistics.mine\n",
    }
    worker, tree, preparation = prepare(files)
    request = Request(suite=TestSuite(), limits=LIMITS, paths=("test_it.py",))
    for shared in (UNPREPARED, preparation):
        assert named(worker.run(tree, request, shared)) == {"test_it": "passed"}


# ---------------------------------------------------------------- whatever happens, nothing stays

HOST = """
import sys, time
from pathlib import Path
from regrade.datasets.tasks import Limits, TestSuite, Tree
from regrade.evaluators.sandboxes import choose
from regrade.evaluators.execution.worker import Request, Worker

worker = Worker(choose(sys.argv[1]), Path(sys.executable), Path(sys.argv[2]), limits=Limits(wall_seconds=60))
worker.run(Tree(Path(sys.argv[3])), Request(suite=TestSuite(), limits=Limits(wall_seconds=60)))
"""


@pytest.mark.parametrize("name", KINDS)
def test_a_killed_host_leaves_no_process(name, write_files, tmp_path):
    working(name)
    mark = f"mark{os.getpid()}{time.time_ns()}"
    started = "import subprocess\ndef test_it():\n    open('started', 'w')\n"
    tree = write_files({"test_it.py": f"{started}    subprocess.run(['sleep', '0.0{mark[4:]}9', '300'])\n"})
    (tmp_path / "scratch").mkdir()
    tmp_path.chmod(0o755)
    host = subprocess.Popen([sys.executable, "-c", HOST, name, str(tmp_path / "scratch"), str(tree.root)])
    try:
        assert wait_for((tmp_path / "scratch" / "tree" / "started").exists), "the candidate did not start"
        # The kernel of gVisor knows the candidate's processes, this machine's only those of gVisor.
        assert name == "gvisor" or wait_for(lambda: running(mark[4:]))
        sandbox = f"regrade-{host.pid}-"
        assert name != "gvisor" or running(sandbox)
    finally:
        host.send_signal(signal.SIGKILL)
        host.wait()
    assert wait_for(lambda: not running(mark[4:]) and not running(sandbox))
    assert wait_for(lambda: not running(str(tmp_path / "scratch")))


def wait_for(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def running(mark):
    """Ids of processes with the mark among their arguments."""
    processes = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in path.read_text() and int(path.parent.name) != os.getpid():
                processes.append(path.parent.name)
        except OSError:
            continue
    return processes
