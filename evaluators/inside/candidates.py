"""The forked child of a candidate: it confines itself, runs the request and exits."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.metadata
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NoReturn

from regrade.evaluators.inside import bytecode, commands, extensions, origins, wheels
from regrade.evaluators.inside.recording.reach import ReachRecorder
from regrade.evaluators.inside.recording.recorder import Recorder
from regrade.evaluators.inside.recording.sources import SourcesRecorder
from regrade.evaluators.inside.remote_calls.likeness import examine_answers
from regrade.evaluators.inside.remote_calls.sides import answer_inputs, candidate_side, tests_side
from regrade.evaluators.inside.sealing import sealing_writer

Write = Callable[[str], None]
PROGRAMS = str(Path(__file__).parents[3])
"""Folder on the import path of these programs."""
PYTEST_OPTIONS = "-q --tb=no --color=no -p no:cacheprovider --continue-on-collection-errors"
EARLY: set[str] = set()
"""Modules that the worker imported for its candidates only."""
FAILED = 70
"""Exit status of a child that did not complete its request."""


class _PluginImportError(BaseException):
    """No `Exception`: a package that goes on without its plugin would stay so for all candidates."""


class _PluginGuard:
    """Refuses to import plugins of pytest. A package may import its own plugin: pytest, which rewrites a plugin when it
    imports it, warns about one that was imported before, and a warning may be an error."""

    def __init__(self) -> None:
        self._plugins = {each.module for each in importlib.metadata.entry_points(group="pytest11")}

    def find_spec(self, name: str, *_: object) -> None:
        if name in self._plugins:
            raise _PluginImportError


def import_early(modules: Iterable[str]) -> None:
    """Import modules in the worker, once for all candidates; the tree is not on its import path. What imports a plugin
    of pytest is left to each candidate."""
    before = set(sys.modules)
    names = [name for name in modules if name not in before]
    if not names:
        return
    guard = _PluginGuard()
    sys.meta_path.insert(0, guard)
    for name in names:
        with contextlib.suppress(BaseException):
            importlib.import_module(name)
    sys.meta_path.remove(guard)
    new = sys.modules.keys() - before
    if new:
        EARLY.update(new)
        gc.collect()
        gc.freeze()  # otherwise each candidate's collector would touch, and so copy, their pages


def confine(request: dict[str, Any], user: int) -> None:
    """Start a session, drop rights, set limits, and enter the tree."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    drop_rights(user)
    _limit(request, is_foreign=request["runner"] != "pytest")
    enter_tree(request)
    if request["rebuild"]:
        extensions.rebuild(request["python_path"])


def drop_rights(user: int) -> None:
    """Change to the user irrevocably; -1: keep the current one."""
    if user >= 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def _limit(request: dict[str, Any], *, is_foreign: bool) -> None:
    limits = request["limits"]
    # The worker waits for the test that runs at the end of the time limit, up to the limit of that test.
    seconds = int(limits["wall_seconds"] + max((request["test_limits"] or {"": 0.0}).values())) + 5
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    if not is_foreign:
        # Runtimes of other languages reserve far more addresses than they use: the worker measures their memory.
        resource.setrlimit(resource.RLIMIT_AS, (limits["memory_mb"] << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_mb"] << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_NPROC, (limits["processes"],) * 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def enter_tree(request: dict[str, Any]) -> None:
    """Make the tree the working directory and put its folders first on sys.path, also for subprocesses."""
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
    else:
        bytecode.reuse_installed(request["bytecode"], root)
    importlib.invalidate_caches()
    _forget_shadowed(folders)
    origins.forget_other_copies(request["own"], root)
    origins.watch_copies(request["own"], root)
    _forget_programs()


def _forget_shadowed(folders: list[str]) -> None:
    """Unload modules imported early that have the name of a module of the tree: the tree's own takes precedence."""
    early = {name.partition(".")[0] for name in EARLY}
    names = {name.removesuffix(".py") for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)}  # noqa: PTH112, PTH208 (quick)
    # A folder without Python files is no package as long as there is one of its name elsewhere.
    specs = {name: PathFinder.find_spec(name, folders) for name in names & early}
    shadowed = {name for name, spec in specs.items() if spec is not None and spec.origin is not None}
    for name in [name for name in sys.modules if name.partition(".")[0] in shadowed]:
        del sys.modules[name]


def start_fresh_interpreter(request: dict[str, Any], results: int, key: bytes) -> NoReturn:
    """Run the request in a new interpreter, without the worker's imports."""
    descriptor = os.memfd_create("request", 0)
    os.write(descriptor, json.dumps({**request, "cold": False, "key": key.hex()}).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    # Otherwise the tree's own sitecustomize.py and pytest.py would shadow those of the environment.
    os.environ.pop("PYTHONPATH", None)
    os.set_inheritable(results, True)
    program = (
        f"import sys; sys.path.insert(0, {PROGRAMS!r}); from regrade.evaluators.inside import candidates; "
        f"sys.path.pop(0); candidates.run_in_fresh_interpreter({descriptor}, {results})"
    )
    os.execv(sys.executable, [sys.executable, "-s", "-P", "-c", program])


def run_in_fresh_interpreter(descriptor: int, results: int) -> NoReturn:
    """Entry point of the interpreter that `start_fresh_interpreter` starts."""
    with open(descriptor, "rb") as file:
        request = json.load(file)
    os.set_inheritable(results, False)
    write = sealing_writer(results, bytes.fromhex(request.pop("key")))
    import_runner()  # before the tree's folders are on the path: the runner uses no code of the tree
    enter_tree(request)
    run(request, write)


def import_runner() -> None:
    """Import all of pytest, so that none of its parts is imported later, beside the tree's modules."""
    from _pytest.config import default_plugins

    for name in default_plugins:
        importlib.import_module("_pytest." + name)


def _forget_programs() -> None:
    """Unload this package: a repository under test may use the same module names."""
    for name in [name for name in sys.modules if name == "regrade" or name.startswith("regrade.")]:
        del sys.modules[name]


def run(request: dict[str, Any], write: Write) -> NoReturn:
    """Run the request in this confined child, and exit."""
    try:
        if request["kind"] == "imports":
            finish(write, _import_all(request["modules"], write))
        if request["kind"] == "wheel":
            finish(write, _build_wheel(write))
        if request["kind"] == "extensions":
            finish(write, _build_extensions(request, write))
        if request["kind"] == "check":
            finish(write, commands.check(request["paths"], write))
        if request["kind"] == "candidate":
            finish(write, candidate_side(request))
        if request["kind"] == "inputs":
            finish(write, answer_inputs(request, write))
        if request["kind"] == "likeness":
            finish(write, examine_answers(request, write))
        if request["runner"] != "pytest":
            finish(write, commands.run_tests(request["runner"], request["paths"], request["select"], write))
        import pytest

        before = set(sys.modules)
        recorder = Recorder(request["root"])
        recorder.begin(
            write,
            request["select"],
            request["skip"],
            request["doctests"],
            request["libraries"],
            watched=is_watched(request),
            sources=request["watched_files"],
        )
        plugins: list[Any] = [recorder]
        sources = SourcesRecorder(write, request["root"]) if request["sources"] else None
        if sources is not None:
            plugins.append(sources)
        if request["reach"] is not None:
            plugins.append(ReachRecorder(write, request["root"], request["reach"], request["part"]))
        if request["crossing"] is not None:
            plugins.append(tests_side(request, write))
        if "" in request["paths"]:  # the paths of the repository's configuration, and further ones
            recorder.further_paths = [path for path in request["paths"] if path]
        paths = [] if recorder.further_paths else request["paths"]
        status = int(pytest.main([*arguments(request), *paths], plugins=plugins))
        if bytecode.COLLECT_ONLY in request["options"]:
            write(json.dumps(["imported", origins.imported_elsewhere(request["root"], before)]))
        elif sources is not None:
            write(json.dumps(["imported", sources.imported()]))
        report_origins(request, write)
        if request["write_bytecode"]:
            bytecode.remove_damaged(request["bytecode"])
        finish(write, status)
    except BaseException as error:
        abort(write, error)


def is_watched(request: dict[str, Any]) -> bool:
    """Are these the tests of a candidate, without a measurement that changes functions itself?"""
    return request["reach"] is None and request["crossing"] is None and not request["sources"]


def report_origins(request: dict[str, Any], write: Write) -> None:
    """Report which of the tree's modules were imported from elsewhere, and which modules of the tests were replaced."""
    if request["crossing"] is None:
        known = frozenset(request["foreign_modules"])
        own = (*request["own"], *(name for name in request["own_below"] if name not in known))
        found = origins.elsewhere(own, request["root"])
        if request["test_modules"]:  # a run has shown which copies the tests themselves open
            found += [[name, file] for name, file in origins.opened_copies().items() if name not in known]
        if found:
            write(json.dumps(["elsewhere", found]))
        tests = dict(request["test_modules"])
        tops = {name.partition(".")[0] for name in request["own"]}
        foreign = [name for name in known if name.partition(".")[0] not in tops]
        found = origins.replaced(tests, foreign, {*request["test_files"], *tests.values()}, request["root"])
        if found:
            write(json.dumps(["replaced", found]))


def arguments(request: dict[str, Any]) -> list[str]:
    """pytest's arguments without the files; ours follow those of the suite, so that ours take effect."""
    root, configuration = request["root"], request["base_configuration"]
    options = [*request["options"], *PYTEST_OPTIONS.split(), "--rootdir", root]
    if configuration is None:
        return options
    # Named, so that no configuration file that the candidate adds takes precedence.
    path = f"{root}/{configuration}" if configuration else os.devnull
    folder = os.path.dirname(path) if configuration else root  # noqa: PTH120 (quick)
    return [*options, "-c", path, "--confcutdir", folder]


def finish(write: Write, status: int) -> NoReturn:
    """Report the completion of the request, and exit."""
    write(json.dumps(["done", status]))
    os._exit(status)


def abort(write: Write, error: BaseException) -> NoReturn:
    """Report the exception that ended the request, and exit."""
    with contextlib.suppress(BaseException):
        traceback.print_exception(error)
        sys.stderr.flush()
        write(json.dumps(["left", f"{type(error).__name__}: {error}"[:500]]))
    os._exit(FAILED)


def _import_all(modules: list[str], write: Write) -> int:
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as error:
            write(json.dumps(["import", name, f"{_location(error)}{type(error).__name__}: {error}"[:500]]))
    write(json.dumps(["threads", len(os.listdir("/proc/self/task"))]))  # noqa: PTH208 (quick)
    return 0


def _build_wheel(write: Write) -> int:
    """The backend's output is not discarded: some backends report failures only there."""
    try:
        wheel = wheels.build_wheel()
        write(json.dumps(["wheel", "built", wheel[:200]]))
    except wheels.NoBackendError as error:
        write(json.dumps(["wheel", "none", str(error)[:200]]))
    except BaseException as error:
        write(json.dumps(["wheel", "failed", f"{type(error).__name__}: {error}"[:500]]))
    return 0


def _build_extensions(request: dict[str, Any], write: Write) -> int:
    try:
        write(json.dumps(["extensions", "", extensions.rebuild(request["python_path"])]))
    except BaseException as error:
        write(json.dumps(["extensions", f"{error}"[:500] or type(error).__name__, []]))
    return 0


def _location(error: BaseException) -> str:
    """`FILE:LINE: ` of the innermost frame inside the tree; empty: there is none."""
    root = f"{Path.cwd()}/"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(root)]
    return f"{frames[-1].filename.removeprefix(root)}:{frames[-1].lineno}: " if frames else ""
