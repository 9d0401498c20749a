"""The warm worker: a preloaded interpreter that forks one child per candidate.

Usage: python worker.py CANDIDATE_UID IS_ALONE
  CANDIDATE_UID  user id that each child drops to, or -1 to stay
  IS_ALONE       1 where this process is the first of its own pid namespace and may kill everything else in it

It reads one JSON request a line on stdin and answers on stdout with `{"event": "forked"}` as soon as the candidate lives and
then one line with the result. Nothing of a candidate is imported here: all of it happens in the child, whose results
come back through a memory file that only the child holds. The clock and the memory count are kept here, outside the child.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import io
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

LARGEST_RESULT = 16 << 20
OUTPUT_TAIL = 4000
DISK_MB = 512
"""How much the working tree may hold while a candidate runs."""
PATIENCE = 10
"""A candidate that gets no core is stopped after this many times its wall limit at the latest."""
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PRELOADED = (
    "abc argparse array ast asyncio base64 bisect calendar cmath collections collections.abc concurrent.futures contextlib copy "
    "copyreg csv ctypes dataclasses datetime decimal difflib dis doctest enum errno fractions functools gc glob gzip hashlib heapq "
    "html importlib.metadata inspect io itertools json keyword linecache locale logging marshal math numbers operator os.path "
    "pathlib pickle pkgutil platform pprint queue random re secrets shlex shutil socket statistics string struct subprocess "
    "sysconfig tempfile textwrap threading time timeit token tokenize traceback types typing unicodedata unittest unittest.mock "
    "urllib.parse uuid warnings weakref xml.etree.ElementTree zipfile"
).split()


def main() -> None:
    user, alone = int(sys.argv[1]), sys.argv[2] == "1"
    # Without this a candidate of the same user could read or trace this process.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    requests, answers = _take_channels()
    _preload()
    original = _entries() if alone else set()
    _answer(answers, {"event": "ready", "python": sys.version.split()[0]})
    while line := _next_line(requests):
        _answer(answers, _serve(json.loads(line), (requests, answers), user, original, alone=alone))


def _next_line(requests: int) -> bytes:
    """One request, read byte block by byte block, so that nothing is read ahead; empty at the end."""
    data = b""
    while not data.endswith(b"\n"):
        block = os.read(requests, 1 << 16)
        if not block:
            return b""
        data += block
    return data


def _take_channels() -> tuple[int, int]:
    """Move the request and answer channels away from descriptors 0 and 1, which candidates write to."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return requests, answers


def _answer(answers: int, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(answers, data):]


def _preload() -> None:
    """Import what tests commonly need, and run one small session so that caches of pytest and re are filled."""
    import pytest
    from _pytest.config import default_plugins

    for name in default_plugins:
        importlib.import_module("_pytest." + name)
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    folder = tempfile.mkdtemp()
    before = set(sys.modules)
    Path(folder, "test_preload.py").write_text(
        "import pytest\n@pytest.mark.parametrize('a', [1])\ndef test_a(a): pass\nclass TestB:\n    def test_b(self): pass\n"
    )
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", folder, "-c", os.devnull, folder])
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(sys.modules[name].__file__).startswith(folder):
            del sys.modules[name]
    sys.path_importer_cache.clear()
    shutil.rmtree(folder, ignore_errors=True)
    gc.collect()
    gc.freeze()


def _serve(request: dict[str, Any], channels: tuple[int, int], user: int, original: set[str], *, alone: bool) -> dict[str, Any]:
    results, output = os.memfd_create("results"), os.memfd_create("output")
    started = time.monotonic()
    try:
        child = os.fork()
        if child == 0:
            _candidate(request, results, output, user)
        _answer(channels[1], {"event": "forked"})
        status, stopped, usage = _watch(child, channels[0], request, alone)
        _kill_rest(child, alone)
        clean = _clean(user, original) if alone else True
        return {
            "event": "done", "status": os.waitstatus_to_exitcode(status), "stopped": stopped,
            "seconds": time.monotonic() - started, "cpu": usage, "lines": _lines(results),
            "output": _tail(output), "clean": clean,
        }
    finally:
        os.close(results)
        os.close(output)


# ---------------------------------------------------------------- in the child


def _candidate(request: dict[str, Any], results: int, output: int, user: int) -> None:
    """In the child: confine, run, leave. Never returns."""
    status = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        results = os.dup2(results, 3, inheritable=False)
        os.closerange(4, 1024)
        _drop_rights(user)
        _limit(request)
        _settle(request)
        status = _run(request, lambda line: _append(results, line))
        _append(results, json.dumps(["done", status]))
    except BaseException as error:
        with contextlib.suppress(BaseException):
            import traceback

            traceback.print_exc()
            _append(results, json.dumps(["left", f"{type(error).__name__}: {error}"[:500]]))
    finally:
        os._exit(status if 0 <= status < 128 else 70)


def _append(results: int, line: str) -> None:
    os.write(results, line.encode("utf-8", "backslashreplace") + b"\n")


def _drop_rights(user: int) -> None:
    if user >= 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def _limit(request: dict[str, Any]) -> None:
    limits = request["limits"]
    seconds = int(limits["wall_seconds"]) + 5
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory_mb"] << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_mb"] << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_NPROC, (limits["processes"],) * 2) if limits["processes"] else None
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _settle(request: dict[str, Any]) -> None:
    """Make the tree the working directory and its folders the first on sys.path, for subprocesses as well."""
    root = request["root"]
    folders = [os.path.normpath(os.path.join(root, folder)) for folder in request["python_path"]]
    os.chdir(root)
    sys.path[:0] = folders
    os.environ.update({"PYTHONPATH": os.pathsep.join(folders), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    sys.pycache_prefix = request["bytecode"]
    if request["bytecode"]:
        os.environ["PYTHONPYCACHEPREFIX"] = request["bytecode"]
    sys.dont_write_bytecode = not request["write_bytecode"]
    if sys.dont_write_bytecode:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    else:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    importlib.invalidate_caches()


def _run(request: dict[str, Any], write: Callable[[str], None]) -> int:
    if request["kind"] == "imports":
        return _import_all(request["modules"], write)
    import pytest

    plugins: list[Any] = [_neighbour("recorder").Recorder(write, request["root"], request["select"])]
    if request["reach"]:
        plugins.append(_neighbour("reach").ReachRecorder(write, request["root"]))
    arguments = ["-q", "--tb=no", "-p", "no:cacheprovider", "--continue-on-collection-errors", "--rootdir", request["root"]]
    status = pytest.main([*request["options"], *arguments, *request["paths"]], plugins=plugins)
    sys.stdout.flush()
    return int(status)


def _import_all(modules: list[str], write: Callable[[str], None]) -> int:
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as error:
            write(json.dumps(["import", name, f"{type(error).__name__}: {error}"[:500]]))
    return 0


def _neighbour(name: str) -> ModuleType:
    """Load a file beside this one under a name that no repository uses."""
    spec = importlib.util.spec_from_file_location(f"_regrade_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- in the worker


def _watch(child: int, requests: int, request: dict[str, Any], alone: bool) -> tuple[int, str, float]:
    """Wait for the child: its wait status, what stopped it ("", "timeout", "memory", "disk"), and CPU seconds used."""
    limits = request["limits"]
    started = looked = time.monotonic()
    deadline = started + limits["wall_seconds"]
    latest = started + limits["wall_seconds"] * PATIENCE
    stopped = ""
    handle = os.pidfd_open(child)
    try:
        while not stopped:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([handle, requests], [], [], max(0.0, min(left, 0.2)))
            if handle in ready:
                break
            if ready:  # the host is gone: no request follows before an answer
                stopped = "abandoned"
            if left <= 0:
                # A busy machine is not the candidate's doing: the time that it spent waiting for a core does not count.
                deadline = min(started + limits["wall_seconds"] + _starved_seconds(child), latest)
                if deadline <= time.monotonic() + 0.01:
                    stopped = "timeout"
            elif alone and _memory_used() > limits["memory_mb"] << 20:
                stopped = "memory"
            elif time.monotonic() - looked > 1.0:
                stopped = "disk" if _bytes_below(request["root"]) > DISK_MB << 20 else ""
                looked = time.monotonic()
        if stopped:
            os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    finally:
        os.close(handle)
    return status, stopped, usage.ru_utime + usage.ru_stime


def _memory_used() -> int:
    """Resident bytes of all other processes of the pid namespace."""
    total = 0
    page = resource.getpagesize()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError, ValueError, IndexError):
                total += int(Path("/proc", name, "statm").read_text().split()[1]) * page
    return total


def _starved_seconds(child: int) -> float:
    """Seconds for which the child's main thread was ready to run and had no core; 0 where the kernel does not say."""
    try:
        return int(Path("/proc", str(child), "schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _bytes_below(folder: str) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total


def _kill_rest(child: int, alone: bool) -> None:
    """Kill whatever the candidate left running, and wait until it is gone."""
    if alone and os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
    while True:
        try:
            if alone:
                os.waitpid(-1, 0)
            elif os.waitpid(-1, os.WNOHANG) == (0, 0) and not _kill_orphans():
                time.sleep(0.001)
        except ChildProcessError:
            return


def _kill_orphans() -> bool:
    """Kill the processes that were handed to this one when their parents died."""
    killed = False
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path("/proc", name, "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[1]) == os.getpid() and fields[0] != "Z":
                    os.kill(int(name), signal.SIGKILL)
                    killed = True
    return killed


SHARED_FOLDERS = ("/tmp", "/dev/shm", "/var/tmp")
"""Folders that candidates can write to, apart from the working tree."""


def _entries() -> set[str]:
    """Everything in the shared folders but what lies in read-only mounts there."""
    found: set[str] = set()
    for top in filter(os.path.isdir, SHARED_FOLDERS):
        for parent, folders, names in os.walk(top):
            if os.statvfs(parent).f_flag & os.ST_RDONLY:
                folders.clear()
                continue
            found.update(os.path.join(parent, name) for name in (*folders, *names))
    return found


def _clean(user: int, original: set[str]) -> bool:
    """Empty the shared folders; False where something stays (the sandbox must then be replaced)."""
    if _entries() != original:
        cleaner = os.fork()
        if cleaner == 0:
            with contextlib.suppress(BaseException):
                _drop_rights(user)
                for folder in filter(os.path.isdir, SHARED_FOLDERS):
                    _empty(folder, original)
            os._exit(0)
        os.waitpid(cleaner, 0)
    return _entries() == original and not _shared_memory_left()


def _empty(folder: str, original: set[str]) -> None:
    for entry in os.scandir(folder):
        if entry.path in original:
            if entry.is_dir(follow_symlinks=False) and not os.statvfs(entry.path).f_flag & os.ST_RDONLY:
                _empty(entry.path, original)
        elif entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)


def _shared_memory_left() -> bool:
    for name in ("shm", "sem", "msg"):
        with contextlib.suppress(OSError):
            if len(Path("/proc/sysvipc", name).read_text().splitlines()) > 1:
                return True
    return False


def _lines(results: int) -> list[str]:
    size = min(os.fstat(results).st_size, LARGEST_RESULT)
    return os.pread(results, size, 0).decode("utf-8", "replace").splitlines()


def _tail(output: int) -> str:
    size = os.fstat(output).st_size
    return os.pread(output, OUTPUT_TAIL, max(0, size - OUTPUT_TAIL)).decode("utf-8", "replace")


if __name__ == "__main__":
    main()
