"""What outlives a candidate: nothing that the next one, in the same sandbox or in another one, can read."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyseccomp
import pytest

from regrade.datasets.tasks import Limits, TestSuite
from regrade.evaluators.execution.replies import statuses
from regrade.evaluators.execution.worker import Request, Worker
from regrade.evaluators.sandboxes import Bubblewrap, Docker, GVisor, Podman, Sandbox
from regrade.evaluators.sandboxes import system_calls as calls

KINDS = [
    pytest.param(Bubblewrap, id="bubblewrap"),
    pytest.param(lambda: Bubblewrap(user_namespace=True), id="bubblewrap with a user namespace"),
    pytest.param(Docker, id="docker", marks=pytest.mark.docker),
    pytest.param(Podman, id="podman"),
    pytest.param(GVisor, id="gvisor"),
]
COMMON = """\
import ctypes, errno, fcntl, os, socket, struct, sys, tempfile
from pathlib import Path
import pytest
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
SECRET = b"expected: 42"

def keyring(number, *arguments):
    return libc.syscall(ctypes.c_long(number), *arguments)

def mq_open(flags):
    attributes = (ctypes.c_long * 8)(0, 4, 64)
    return libc.mq_open(b"/left", flags, 0o666, attributes)
"""
PLANTS = (
    COMMON
    + """
# Each plants what it can. What the sandbox refuses is not planted, which is as good.
def attempt(act):
    try:
        act()
    except (OSError, AttributeError):
        pass

def test_keyring():
    for ring in (-3, -4, -5):
        keyring(ADD_KEY, b"user", b"left", SECRET, len(SECRET), ctypes.c_int(ring))

def test_shared_memory():
    shared = libc.shmget(77, 4096, 0o1666)
    if shared >= 0:
        ctypes.memmove(libc.shmat(shared, None, 0), SECRET, len(SECRET))
    libc.semget(77, 1, 0o1666)
    queue = libc.msgget(77, 0o1666)
    if queue >= 0:
        libc.msgsnd(queue, struct.pack("l", 1) + SECRET, len(SECRET), 0)

def test_message_queue():
    queue = mq_open(os.O_RDWR | os.O_CREAT)
    if queue >= 0:
        libc.mq_send(queue, SECRET, len(SECRET), 0)

@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm", "/var/tmp", "/dev/mqueue", "/bytecode", "/regrade", "/repo/.git"])
def test_files(folder):
    def plant():
        Path(folder, ".left").write_bytes(SECRET)
        os.chmod(Path(folder, ".left"), 0o666)
    attempt(plant)
    attempt(lambda: Path(folder, SECRET.decode()).mkdir())

def test_times_of_files_of_the_machine():
    for path in (os.__file__, pytest.__file__, sys.executable, "/bytecode/never-read"):
        attempt(lambda: os.utime(path, (42, 42)))
        attempt(lambda: open(path, "rb").read(1))

def test_locks():
    with open(os.__file__) as file:
        attempt(lambda: fcntl.flock(file, fcntl.LOCK_EX))
        if os.fork() == 0:
            os.setsid()
            import time
            time.sleep(600)

def test_abstract_socket():
    server = socket.socket(socket.AF_UNIX)
    attempt(lambda: server.bind("\\0left"))
    server.listen()
    if os.fork() == 0:
        os.setsid()
        connection, _ = server.accept()
        connection.sendall(SECRET)
        os._exit(0)

def test_host_name():
    attempt(lambda: socket.sethostname("expected42"))
"""
)
SEEKS = (
    COMMON
    + """
def test_keyring():
    for ring in (-3, -4, -5):
        key = keyring(KEYCTL, 10, ctypes.c_int(ring), b"user", b"left", 0)
        assert key < 0
    try:
        assert "left" not in Path("/proc/keys").read_text()
    except OSError:
        pass

def test_shared_memory():
    assert libc.shmget(77, 0, 0) == -1
    assert libc.semget(77, 0, 0) == -1
    assert libc.msgget(77, 0) == -1

def test_message_queue():
    assert mq_open(os.O_RDWR) == -1

@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm", "/var/tmp", "/dev/mqueue", "/bytecode", "/regrade", "/repo/.git"])
def test_files(folder):
    assert not os.path.isdir(folder) or not [name for name in os.listdir(folder) if name in (".left", SECRET.decode())]

def test_times_of_files_of_the_machine():
    for path in (os.__file__, pytest.__file__, sys.executable):
        assert os.stat(path).st_mtime != 42
        assert os.stat(path).st_atime == TIMES[path]
    assert TIMES_STAY == (os.stat("/bytecode/never-read").st_atime == 1)

def test_locks():
    with open(os.__file__) as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)

def test_abstract_socket():
    with pytest.raises(OSError):
        socket.socket(socket.AF_UNIX).connect("\\0left")

def test_host_name():
    assert socket.gethostname() == "sandbox"

def test_processes():
    assert len([name for name in os.listdir("/proc") if name.isdigit()]) <= 3
"""
)
DENIED = """\
import ctypes, pytest
libc = ctypes.CDLL(None, use_errno=True)

@pytest.mark.parametrize("name", CALLS)
def test_call(name):
    ctypes.set_errno(0)
    assert libc.syscall(ctypes.c_long(CALLS[name]), 0, 0, 0, 0, 0, 0) == -1
    assert ctypes.get_errno() in ERRORS, ctypes.get_errno()

@pytest.mark.parametrize("flag", range(32))
def test_no_new_namespace(flag):
    if NEW & 1 << flag:
        process = libc.syscall(ctypes.c_long(CLONE), 1 << flag | 17, 0, 0, 0, 0)
        if process == 0:
            libc._exit(0)
        assert process == -1

@pytest.mark.parametrize("family", [f for f in range(46) if f not in FAMILIES])
def test_no_other_socket(family):
    assert libc.socket(family, 3, 0) == -1
    assert libc.socket(family, 1, 0) == -1
    assert libc.socket(family, 5, 0) == -1

def test_address_randomisation_stays():
    assert libc.personality(ctypes.c_ulong(0x0040000)) == -1
"""
CHANGES_A_TEST = """
import contextlib, os, shutil

def change():
    for act in (
        lambda: open("kept/test_other.py", "w"),
        lambda: os.chmod("kept/test_other.py", 0o666),
        lambda: os.unlink("kept/test_other.py"),
        lambda: os.rename("kept", "moved"),
        lambda: shutil.rmtree("kept"),
    ):
        with contextlib.suppress(OSError):
            act()

change()

def test_it(): pass
"""
ORDINARY = """\
import asyncio, ctypes, multiprocessing, os, socket, subprocess, sys, threading

def test_processes():
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True).stdout == "1\\n"
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
    assert os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]) == 0

def test_threads_and_loops():
    thread = threading.Thread(target=print)
    thread.start()
    thread.join()
    async def ran():
        process = await asyncio.create_subprocess_exec("/bin/echo", "x", stdout=-1)
        return (await process.communicate())[0]
    assert asyncio.run(ran()) == b"x\\n"

def test_sockets():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        server.accept()[0].sendall(b"x")
        assert client.recv(1) == b"x"
    socket.socket(socket.AF_INET6).close()
    assert socket.if_nameindex()
    one, other = socket.socketpair()
    one.sendall(b"x")
    assert other.recv(1) == b"x"

def test_own_user():
    print(os.getuid())
"""


@pytest.fixture(params=KINDS)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    sandbox: Sandbox = request.param()
    problem = sandbox.problem()
    if problem:
        pytest.skip(problem)
    return sandbox


@pytest.fixture
def new_worker(sandbox: Sandbox, tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    tmp_path.chmod(0o755)
    (tmp_path / "bytecode").mkdir()
    never_read = tmp_path / "bytecode" / "never-read"
    never_read.write_text("x")
    os.utime(never_read, (1, 2))  # the kernel would note the first reading
    workers = []

    def start() -> Worker:
        scratch = tmp_path / f"scratch-{len(workers)}"
        scratch.mkdir()
        workers.append(Worker(sandbox, Path(sys.executable), scratch, tmp_path / "bytecode"))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def passes(worker: Worker, tree, *, expected: int) -> None:
    reply = worker.run(tree, Request(suite=TestSuite(), limits=Limits()))
    outcomes = statuses(reply)
    assert len(outcomes) == expected, reply
    assert not [(test, outcome.message) for test, outcome in outcomes.items() if outcome.status != "passed"]


def number(name: str) -> int:
    return int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))


def test_nothing_outlives_a_candidate(sandbox, new_worker, write_files):
    numbers = f"ADD_KEY, KEYCTL = {number('add_key')}, {number('keyctl')}\n"
    paths = (Path(os.__file__), Path(pytest.__file__), Path(sys.executable))
    times = f"TIMES = { {str(path): path.stat().st_atime for path in paths} }\n"
    # Docker mounts read-only, but not for gVisor: its process on this machine opens the files.
    times += f"TIMES_STAY = {not (isinstance(sandbox, Docker) and sandbox.is_gvisor)}\n"
    one, other = new_worker(), new_worker()
    passes(one, write_files({"test_it.py": numbers + PLANTS}), expected=14)
    seeks = write_files({"test_it.py": numbers + times + SEEKS})
    passes(one, seeks, expected=15)
    passes(other, seeks, expected=15)


def test_each_candidate_is_a_user_of_its_own(sandbox, new_worker, write_files):
    if not sandbox.candidate_users():
        pytest.skip("only root can give each candidate a user id")
    tree = write_files({"test_it.py": "import os\ndef test_it():\n    os.write(1, str(os.getuid()).encode())\n"})
    one, other = new_worker(), new_worker()
    request = Request(suite=TestSuite(options=("-s",)), limits=Limits())
    lines = [worker.run(tree, request).output.partition("\n")[0] for worker in (one, one, other, one)]
    users = [int("".join(filter(str.isdigit, line))) for line in lines]
    assert len(set(users)) == 4
    assert min(users) >= 200_000


def test_only_a_candidate_of_the_same_user_changes_protected_files(sandbox, new_worker, write_files):
    worker = new_worker()
    tree = write_files({"test_it.py": CHANGES_A_TEST, "kept/test_other.py": "def test_it(): pass\n"})
    passes(worker, tree, expected=2)
    expected = set() if sandbox.candidate_users() else {"kept/test_other.py"}
    assert worker.take_rewritten() == expected


def test_calls_that_reach_beyond_the_sandbox_are_denied(new_worker, write_files):
    names = {name for names in calls.DENIED.values() for name in names.split()}
    denied = {name: number(name) for name in sorted(names) if number(name) >= 0}
    text = (
        f"CALLS, ERRORS, CLONE = {denied}, {(errno.EPERM, errno.ENOSYS)}, {number('clone')}\n"
        f"NEW, FAMILIES = {calls.NEW_NAMESPACES}, {sorted(calls.SOCKET_FAMILIES.values())}\n"
    )
    passes(new_worker(), write_files({"test_it.py": text + DENIED}), expected=len(denied) + 32 + 42 + 1)


def test_calls_of_ordinary_programs_work(new_worker, write_files):
    passes(new_worker(), write_files({"test_it.py": ORDINARY}), expected=4)


def test_without_libseccomp_the_sandbox_says_what_to_install(monkeypatch):
    calls.program.cache_clear()
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    assert "apt-get install libseccomp2" in Bubblewrap().problem()
