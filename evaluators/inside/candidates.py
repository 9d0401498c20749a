"""What happens in the child: it confines itself, runs the request and leaves."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from regrade.evaluators.inside import bytecode, commands, wheels
from regrade.evaluators.inside.recording.reach import ReachRecorder
from regrade.evaluators.inside.recording.recorder import Recorder
from regrade.evaluators.inside.remote_calls.sides import answer_inputs, candidate_side, tests_side
from regrade.evaluators.inside.sealing import sealing_writer

Write = Callable[[str], None]
PROGRAMS = str(Path(__file__).parents[3])
"""The folder that these programs are imported from."""
COLLECT_ONLY = "--collect-only"
EARLY: set[str] = set()
"""Modules that the worker imported for its candidates, and that nothing else needs."""
FAILED = 70
"""Exit status of a child that did not come to its end."""


def import_early(modules: Iterable[str]) -> None:
    """Import modules in the worker, so that no candidate has to: none of the tree, as that is not on its path."""
    before = set(sys.modules)
    for name in modules:
        if name not in before:
            with contextlib.suppress(BaseException):
                importlib.import_module(name)
    new = sys.modules.keys() - before
    if new:
        EARLY.update(new)
        gc.collect()
        gc.freeze()  # else every candidate would look through them, and copy their pages


def confine(request: dict[str, Any], user: int) -> None:
    """Own session, own user, limits, and the tree as the place to work in."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    drop_rights(user)
    _limit(request["limits"], foreign=request["runner"] != "pytest")
    settle(request)


def drop_rights(user: int) -> None:
    """Become the user for good, where there is one."""
    if user >= 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def _limit(limits: dict[str, Any], *, foreign: bool) -> None:
    seconds = int(limits["wall_seconds"]) + 5
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    if not foreign:
        # Other languages reserve far more addresses than they use; what they use is watched from outside.
        resource.setrlimit(resource.RLIMIT_AS, (limits["memory_mb"] << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_mb"] << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_NPROC, (limits["processes"],) * 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def settle(request: dict[str, Any]) -> None:
    """Make the tree the working directory and its folders the first on sys.path, for subprocesses as well."""
    root = request["root"]
    folders = [os.path.normpath(f"{root}/{folder}") for folder in request["python_path"]]
    os.chdir(root)
    sys.path[:0] = folders
    os.environ.update({"PYTHONPATH": os.pathsep.join(folders), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    sys.pycache_prefix = request["bytecode"]
    if request["bytecode"]:
        os.environ["PYTHONPYCACHEPREFIX"] = request["bytecode"]
    sys.dont_write_bytecode = not request["write_bytecode"]
    if sys.dont_write_bytecode:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    importlib.invalidate_caches()
    _forget_shadowed(folders)
    _forget_programs()


def _forget_shadowed(folders: list[str]) -> None:
    """Of what was imported early, a module that the tree has under the same name is the tree's."""
    own = {name.removesuffix(".py") for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)}  # noqa: PTH112, PTH208 (quick)
    shadowed = own & {name.partition(".")[0] for name in EARLY}
    for name in [name for name in sys.modules if name.partition(".")[0] in shadowed]:
        del sys.modules[name]


def start_anew(request: dict[str, Any], results: int, key: bytes) -> NoReturn:
    """Run the request in an interpreter of its own, where nothing was imported before."""
    asked = os.memfd_create("request", 0)
    os.write(asked, json.dumps({**request, "cold": False, "key": key.hex()}).encode())
    os.lseek(asked, 0, os.SEEK_SET)
    # Else the tree's own sitecustomize.py and pytest.py would come before those of the environment.
    os.environ.pop("PYTHONPATH", None)
    os.set_inheritable(results, True)
    program = (
        f"import sys; sys.path.insert(0, {PROGRAMS!r}); from regrade.evaluators.inside.candidates import begin_anew; "
        f"sys.path.pop(0); begin_anew({asked}, {results})"
    )
    os.execv(sys.executable, [sys.executable, "-s", "-P", "-c", program])


def begin_anew(asked: int, results: int) -> NoReturn:
    """The first call in the interpreter that `start_anew` made."""
    with open(asked, "rb") as file:  # a descriptor
        request = json.load(file)
    os.set_inheritable(results, False)
    write = sealing_writer(results, bytes.fromhex(request.pop("key")))
    settle(request)
    run(request, write)


def _forget_programs() -> None:
    """A repository under test may have these names for itself."""
    for name in [name for name in sys.modules if name == "regrade" or name.startswith("regrade.")]:
        del sys.modules[name]


def run(request: dict[str, Any], write: Write) -> NoReturn:
    """Run the request in this confined child, and leave."""
    try:
        if request["kind"] == "imports":
            finish(write, _import_all(request["modules"], write))
        if request["kind"] == "wheel":
            finish(write, _build_wheel(write))
        if request["kind"] == "check":
            finish(write, commands.check(request["paths"], write))
        if request["kind"] == "candidate":
            finish(write, candidate_side(request))
        if request["kind"] == "inputs":
            finish(write, answer_inputs(request, write))
        if request["runner"] != "pytest":
            finish(write, commands.run_tests(request["runner"], request["paths"], request["select"], write))
        import pytest

        before = set(sys.modules)
        recorder = Recorder(request["root"])
        recorder.begin(write, request["select"])
        plugins: list[Any] = [recorder]
        if request["reach"] is not None:
            plugins.append(ReachRecorder(write, request["root"], request["reach"]))
        if request["crossing"] is not None:
            plugins.append(tests_side(request, write))
        status = int(pytest.main([*arguments(request), *request["paths"]], plugins=plugins))
        if COLLECT_ONLY in request["options"]:
            write(json.dumps(["imported", _imported_elsewhere(request["root"], before)]))
        if request["write_bytecode"]:
            bytecode.drop_damaged(request["bytecode"])
        finish(write, status)
    except BaseException as error:
        leave(write, error)


def arguments(request: dict[str, Any]) -> list[str]:
    """pytest's arguments without the files; those of the suite first, so that ours hold."""
    ours = [
        "-q",
        "--tb=no",
        "--color=no",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        "--rootdir",
        request["root"],
    ]
    return [*request["options"], *ours]


def finish(write: Write, status: int) -> NoReturn:
    """Say that the request came to its end, and leave."""
    write(json.dumps(["done", status]))
    os._exit(status)


def leave(write: Write, error: BaseException) -> NoReturn:
    """Say what carried the child away, and leave."""
    with contextlib.suppress(BaseException):
        traceback.print_exception(error)
        sys.stderr.flush()
        write(json.dumps(["left", f"{type(error).__name__}: {error}"[:500]]))
    os._exit(FAILED)


def _imported_elsewhere(root: str, before: set[str]) -> list[str]:
    """The modules that were imported in the meantime, in that order, but for those of the tree."""
    own = {
        name.partition(".")[0]
        for name, module in list(sys.modules.items())
        if str(getattr(module, "__file__", None) or "").startswith(f"{root}/")
    }
    return [name for name in sys.modules if name not in before and name.partition(".")[0] not in own]


def _import_all(modules: list[str], write: Write) -> int:
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as error:
            write(json.dumps(["import", name, f"{_place(error)}{type(error).__name__}: {error}"[:500]]))
    write(json.dumps(["threads", len(os.listdir("/proc/self/task"))]))  # noqa: PTH208 (quick)
    return 0


def _build_wheel(write: Write) -> int:
    """The backend prints at length, and some speak of failures only there: so its output is kept."""
    try:
        built = wheels.build_wheel()
        write(json.dumps(["wheel", "built", built[:200]]))
    except wheels.NoBackendError as error:
        write(json.dumps(["wheel", "none", str(error)[:200]]))
    except BaseException as error:
        write(json.dumps(["wheel", "failed", f"{type(error).__name__}: {error}"[:500]]))
    return 0


def _place(error: BaseException) -> str:
    """`FILE:LINE: ` of the innermost line of the tree that raised; empty where none did."""
    here = f"{Path.cwd()}/"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(here)]
    return f"{frames[-1].filename.removeprefix(here)}:{frames[-1].lineno}: " if frames else ""
