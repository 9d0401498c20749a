"""Isolation of candidates in a sandbox, and the reasons that a broken sandbox reports."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Limits, TestSuite
from regrade.evaluators.execution.replies import statuses
from regrade.evaluators.execution.worker import Request, Worker
from regrade.evaluators.sandboxes import (
    Bubblewrap,
    Docker,
    GVisor,
    Podman,
    Process,
    Sandbox,
    SandboxError,
    available,
    choose,
)
from regrade.evaluators.sandboxes.interpreters import interpreter_folders
from regrade.evaluators.sandboxes.piped import PipedSession

KINDS = [
    pytest.param(Bubblewrap, id="bubblewrap"),
    pytest.param(lambda: Bubblewrap(user_namespace=True), id="bubblewrap with a user namespace"),
    pytest.param(Docker, id="docker", marks=pytest.mark.docker),
    pytest.param(Podman, id="podman"),
    pytest.param(GVisor, id="gvisor"),
]

PROBES = """\
import ctypes, os, socket, subprocess, sys
from pathlib import Path
import pytest

def test_no_file_of_the_host_is_there():
    with pytest.raises(OSError):
        Path(SECRET).read_text()
    assert not Path("/etc/passwd").exists()
    assert not Path("/root/.ssh").exists()

@pytest.mark.parametrize("path", ["/regrade/x", "/x", "/usr/x", "/bytecode/x", "/dev/x", os.__file__, pytest.__file__])
def test_nothing_else_can_be_written(path):
    with pytest.raises(OSError):
        Path(path).write_text("x")

@pytest.mark.parametrize("path", ["/repo/x", "/tmp/x", "/dev/shm/x"])
def test_the_tree_and_scratch_folders_can_be_written(path):
    Path(path).write_text("x")

def test_no_network():
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", PORT), timeout=2)
    with pytest.raises(OSError):
        socket.create_connection(("1.1.1.1", 53), timeout=2)

def test_localhost_is_this_sandbox():
    with socket.create_server(("localhost", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=2).close()

def test_the_worker_can_not_be_killed():
    try:
        os.kill(1, 9)
        os.kill(1, 19)
    except PermissionError:
        pass
    assert Path("/proc/1/stat").read_text().split()[2] not in "TZ"

def test_the_worker_can_not_be_traced():
    assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == -1

@pytest.mark.parametrize("name", ["mem", "environ", "fd/0", "root/tmp"])
def test_the_worker_can_not_be_read(name):
    with pytest.raises(OSError):
        open(f"/proc/1/{name}", "rb").read(1)
        os.listdir(f"/proc/1/{name}")

def test_nothing_can_be_mounted():
    assert ctypes.CDLL(None).mount(b"x", b"/tmp", b"tmpfs", 0, None) == -1
    assert subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "x", "/tmp"], capture_output=True).returncode != 0

def test_the_environment_is_clean():
    assert "secret" not in str(dict(os.environ))

def test_no_capability_and_no_way_to_one():
    lines = dict(line.split(":\\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
    assert int(lines["CapEff"], 16) == int(lines["CapPrm"], 16) == int(lines.get("CapAmb", "0"), 16) == 0
    assert ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) == 1  # PR_GET_NO_NEW_PRIVS
    with pytest.raises(OSError):
        os.setuid(0 if os.getuid() else 1)

def test_no_process_of_the_host_is_seen():
    assert len([name for name in os.listdir("/proc") if name.isdigit()]) <= 3

def test_no_descriptor_leads_out():
    links = {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{name}").exists()}
    assert not [link for link in links if link.startswith(("pipe:", "socket:"))]
"""


@pytest.fixture(params=KINDS)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    sandbox = request.param()
    problem = sandbox.problem()
    if problem:
        pytest.skip(problem)
    return sandbox


@pytest.fixture
def worker(sandbox: Sandbox, tmp_path: Path) -> Iterator[Worker]:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "bytecode").mkdir()
    tmp_path.chmod(0o755)
    with Worker(sandbox, Path(sys.executable), tmp_path / "scratch", tmp_path / "bytecode") as worker:
        yield worker


def test_a_candidate_is_confined(worker, write_files, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    secret.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = f"SECRET, PORT = {str(secret)!r}, {server.getsockname()[1]}\n"
        reply = worker.run(write_files({"test_probes.py": names + PROBES}), Request(suite=TestSuite(), limits=Limits()))
        socket.create_connection(server.getsockname(), timeout=2).close()
    outcomes = statuses(reply)
    assert len(outcomes) == 24, reply
    assert not [(test, outcome.message) for test, outcome in outcomes.items() if outcome.status != "passed"]


SHOWS_KERNEL = """
import os
from pathlib import Path

def test_the_kernel_of_this_machine_is_out_of_reach():
    assert os.uname().release != RELEASE
    assert Path("/proc/version").read_text() != VERSION
    assert not [name for name in FILES if os.access(name, os.R_OK)]
"""
KERNEL_FILES = ("/proc/kallsyms", "/proc/modules", "/proc/vmstat", "/proc/sys/kernel/random/boot_id", "/sys/kernel/mm")


def test_only_gvisor_is_a_kernel_of_its_own(sandbox, worker, write_files):
    names = f"RELEASE, VERSION, FILES = {os.uname().release!r}, {Path('/proc/version').read_text()!r}, {KERNEL_FILES}\n"
    reply = worker.run(write_files({"test_it.py": names + SHOWS_KERNEL}), Request(suite=TestSuite(), limits=Limits()))
    (outcome,) = statuses(reply).values()
    is_gvisor = isinstance(sandbox, GVisor) or (isinstance(sandbox, Docker) and sandbox.is_gvisor)
    assert outcome.status == ("passed" if is_gvisor else "failed"), outcome


@pytest.mark.parametrize(
    ("program", "reason"),
    [("echo one; echo two: it failed", r"\(one two: it failed\)"), ("kill -9 $$", r"\(no message\)|Killed")],
)
def test_gvisor_that_does_not_start_says_why_in_one_line(monkeypatch, tmp_path, program, reason):
    (tmp_path / "runsc").write_text(f"#!/bin/sh\nexec >&2\n{program}\nexit 1\n")
    (tmp_path / "runsc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if os.geteuid() != 0:
        pytest.skip("as another user it is refused without a trial")
    with pytest.raises(UserError, match=rf"^the sandbox gvisor: a trial start failed .*({reason}).*do true`$"):
        choose("gvisor")


def test_gvisor_needs_root_and_says_so(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(UserError, match=r"sandbox gvisor: it needs root, .* choose bubblewrap"):
        choose("gvisor")


@pytest.fixture
def crowded():
    """More open descriptors than `select` supports."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("this user may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("crowded")
def test_closed_sandboxes_leave_no_descriptor(worker, write_files):
    tree = write_files({"test_it.py": "def test_it(): pass\n"})
    counts = []
    for _ in range(4):
        assert worker.run(tree, Request(suite=TestSuite(), limits=Limits(wall_seconds=20.0))).status == 0
        worker.close()
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts[1:] == counts[1:2] * 3


@pytest.mark.parametrize("fault", ["no room for a file", "no program"])
def test_a_session_that_does_not_start_leaves_no_descriptor(monkeypatch, tmp_path, fault):
    if fault == "no room for a file":
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises((OSError, SandboxError)):
            PipedSession([str(tmp_path / "no-program")], {}, information=os.pipe(), inherited=(os.dup(0),))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_kinds_that_work_start_by_trial():
    problems = available()
    assert list(problems) == ["bubblewrap", "docker", "podman", "gvisor", "process"]
    assert problems["process"] == ""
    first = next(name for name, problem in problems.items() if not problem)
    assert choose("auto").name == first


@pytest.mark.parametrize("name", ["chroot", "bubblewrap:image", "gvisor:image", ""])
def test_an_unknown_sandbox_is_refused(name):
    with pytest.raises(
        UserError, match=r"unknown sandbox .* choose one of auto, bubblewrap, docker, podman, gvisor, process"
    ):
        choose(name)


@pytest.mark.parametrize(("name", "package"), [("bubblewrap", "bubblewrap"), ("gvisor", "runsc")])
def test_a_sandbox_that_is_not_installed_says_what_to_install(monkeypatch, tmp_path, name, package):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=rf"sandbox {name}: .*apt-get install {package}"):
        choose(name)


def test_an_engine_that_does_not_answer_says_so(monkeypatch):
    pytest.importorskip("docker")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(UserError, match=r"sandbox docker: no Docker engine answers: start one"):
        choose("docker")


def test_the_plain_process_says_that_it_is_no_boundary():
    assert not Process().isolated
    assert Bubblewrap().isolated
    assert Docker().isolated


def test_an_interpreter_brings_its_own_folders():
    folders = interpreter_folders(Path(sys.executable))
    assert all(folder.is_dir() for folder in folders)
    assert not any(other in folder.parents for folder in folders for other in folders)


def test_an_interpreter_that_does_not_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"interpreter .*missing.* does not run"):
        interpreter_folders(tmp_path / "missing")
