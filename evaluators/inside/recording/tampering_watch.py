"""Facts about a test session that only tampering explains: what of pytest, of Python's measures and of the tests
themselves is not what it was before the code under test ran.

Whatever way the code took (`vars`, the garbage collector, `__subclasses__`, frames, marshalled text), the result is
seen here: an object in the place of another one. The tests of some repositories replace such objects themselves; so
the trusted side compares with a session on the base, see `execution/run_tests.py`. All of this is in memory that the
code under test can write: it makes tampering harder, not impossible.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any

RUNNER = ("_pytest", "pytest", "pluggy", "unittest", "doctest", "iniconfig")
"""Packages that produce the outcomes."""
DESCRIPTORS = (FunctionType, staticmethod, classmethod, property, BuiltinFunctionType, MethodDescriptorType)
MEASURES: Mapping[str, tuple[str, ...]] = {
    "builtins": tuple(name for name in vars(builtins) if callable(vars(builtins)[name])),
    "math": tuple(name for name in vars(math) if callable(vars(math)[name]) and not name.startswith("_")),
    "operator": ("eq", "ne", "lt", "le", "gt", "ge", "is_", "contains", "itemgetter"),
    "statistics": ("mean", "fmean", "median", "stdev", "pstdev", "variance", "pvariance"),
    "time": ("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time"),
    "json": ("dumps", "dump", "loads", "load"),
    "os": ("write", "_exit"),
}
"""Module -> functions with which tests and test runners measure and compare; watched if it is imported."""
LOADERS = ("_pytest.assertion.rewrite", "importlib", "_frozen_importlib", "zipimport")
NUMBERS, WORDS = (1234.5678, -99991, 0.5), ("\0a", "unlikely", "")
MOST = 50
PROBE_SECONDS = 0.5
Entries = dict[str, Any]
"""Name -> its value, and the code of a function."""
LEGACY = frozenset({"_getini_unknown_type", "inifile", "invocation_dir", "rootdir", "fspath", "startdir", "makedir"})
"""Names that pytest itself replaces in its classes in each session, by functions of `_pytest.legacypath`."""
_snapshot: list[tuple[str, Mapping[str, Any], Entries, bool]] = []
_legacy: set[CodeType] = set()


def take_snapshot() -> None:
    """Remember the functions of the test runner and of Python's measures, before any code of the tree runs."""
    if _snapshot:
        return
    seen: set[int] = set()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in RUNNER and not name.startswith("unittest.mock"):
            _snapshot.append((name, vars(module), _entries(vars(module), of_class=False), False))
            for cls in list(vars(module).values()):
                if isinstance(cls, type) and cls.__module__.partition(".")[0] in RUNNER and id(cls) not in seen:
                    seen.add(id(cls))
                    path = f"{cls.__module__}.{cls.__qualname__}"
                    _snapshot.append((path, vars(cls), _entries(vars(cls), of_class=True), True))
    legacy = sys.modules.get("_pytest.legacypath")
    _legacy.update(code for value in vars(legacy or math).values() if (code := _code(value)) is not None)
    for measured, names in MEASURES.items():
        scope = vars(sys.modules[measured]) if measured in sys.modules else {}
        _snapshot.append((measured, scope, {name: (scope[name], None) for name in names if name in scope}, False))


def _entries(owner: Mapping[str, Any], *, of_class: bool) -> Entries:
    kinds = DESCRIPTORS if of_class else (FunctionType, type, BuiltinFunctionType)
    return {name: (value, _code(value)) for name, value in owner.items() if isinstance(value, kinds)}


def _code(value: object) -> CodeType | None:
    value = getattr(value, "__func__", value) if isinstance(value, (staticmethod, classmethod)) else value
    return value.__code__ if type(value) is FunctionType else None


class TamperingWatch:
    """Watches one session; reports each kind of tampering once, as `["tampered", what, by]`."""

    def __init__(self, write: Callable[[str], None], root: str, constants: Mapping[str, int]) -> None:
        """
        Args:
            root: folder of the tree.
            constants: a table that decides outcomes.
        """
        take_snapshot()
        self._folder = f"{root}/"
        self._write, self._dumps = write, json.dumps
        self._constants, self._original = constants, dict(constants)
        self._seen: set[str] = set()
        self._functions: dict[str, tuple[FunctionType, CodeType]] = {}
        self._files: frozenset[str] = frozenset()
        self._modules: dict[str, tuple[Any, dict[str, Any]]] = {}

    def collected(self, items: list[Any]) -> None:
        """The tests are collected, and none has run."""
        functions = {item.nodeid: function for item in items if (function := _function_of(item)) is not None}
        self._functions = {test: (function, function.__code__) for test, function in functions.items()}
        modules = {id(module): module for item in items if (module := getattr(item, "module", None)) is not None}
        self._files = frozenset(str(getattr(module, "__file__", "")) for module in modules.values())
        for module in modules.values():
            self._modules[module.__name__] = (module, dict(vars(module)))
            loader = type(getattr(module, "__loader__", None))
            if loader is not type(None) and not loader.__module__.startswith(LOADERS):
                self._report(f"the module {module.__name__} of tests is loaded by another loader", loader)
        self.compare()

    def reported(self, item: Any, call: Any, excinfo: object, report: Any) -> None:
        """A phase of a test was reported.

        Args:
            excinfo: what the phase raised, before any hook saw it.
        """
        if excinfo is not None and report.passed and not hasattr(report, "wasxfail"):
            self._report("a test that raised an exception is reported as passed", type(report))
        if excinfo is not call.excinfo and call.excinfo is None:
            self._report("the exception of a test is removed from its record", type(call))
        if not type(report).__module__.startswith("_pytest."):
            self._report("a report of a test is of another class", type(report))
        for name in vars(item).keys() & _methods(type(item)):
            self._report(f"{type(item).__name__}.{name} is replaced in a test", vars(item)[name])
        function = _function_of(item)
        if function is not None and function is not self._functions.get(item.nodeid, (function,))[0]:
            self._report(f"{item.nodeid} is another function than when it was collected", function)

    def compare(self) -> None:
        """Compare the runner and Python's measures with what they were."""
        for path, owner, entries, of_class in _snapshot:
            for name, (value, code) in entries.items():
                current = owner.get(name)
                is_changed = current is not value or (code is not None and _code(value) is not code)
                if is_changed and not _is_legacy(name, current) and not self._is_of_tests(path, current):
                    self._report(f"{path}.{name} is replaced", current)
            if of_class and len(owner) > len(entries):
                for name in owner.keys() - entries.keys():
                    kinds = (FunctionType, property, staticmethod, classmethod)
                    if isinstance(owner[name], kinds) and not _is_legacy(name, owner[name]):
                        self._report(f"{path}.{name} is added", owner[name])
        if self._constants != self._original:
            self._report("the ranks of outcomes are changed", None)

    def _is_of_tests(self, path: str, value: object) -> bool:
        """Did a test replace one of Python's measures by a function of its own?"""
        if path.partition(".")[0] in RUNNER:
            return False
        return any(_code(value) in _codes_of(before) for _, before in self._modules.values())

    def finished(self, hook: Any) -> None:
        """All tests have run.

        Args:
            hook: pytest's hooks.
        """
        self.compare()
        for test, (function, code) in self._functions.items():
            if function.__code__ is not code:
                self._report(f"{test} has another body than when it was collected", function)
        for name, (module, before) in self._modules.items():
            self._compare_module(name, vars(module), before)
        for plugin in self._plugins(hook):
            self._report(f"the plugin {_name(plugin)} decides outcomes", plugin)
        for tracer in (sys.gettrace(), sys.getprofile()):
            if tracer is not None:
                self._report("the code under test traces the tests", tracer)
        with contextlib.suppress(Exception):
            self._probe_equalities()

    def _compare_module(self, name: str, after: dict[str, Any], before: dict[str, Any]) -> None:
        """A module of tests may only change where its own code changes it."""
        for key, value in after.items():
            is_new = key not in before and key in vars(builtins)
            is_replaced = key in before and before[key] is not value and callable(before[key])
            if (is_new or is_replaced) and not key.startswith("__"):
                own = _codes_of(before)
                if key not in _global_stores(own) and _code(value) not in own:
                    self._report(f"{name}.{key} is replaced", value)

    def _probe_equalities(self) -> None:
        """Ask each class of the code under test whether it equals unrelated values."""
        classes = [cls for cls in _subclasses(object) if self._is_under_test(vars(cls).get("__eq__"))]
        if not classes:
            return
        signal.signal(signal.SIGALRM, _stop)
        for cls in classes:
            if "__new__" in vars(cls) or "__init__" in vars(cls):
                continue
            signal.setitimer(signal.ITIMER_REAL, PROBE_SECONDS)
            try:
                made: object = cls.__new__(cls)  # type: ignore[call-overload]
                equal = vars(cls)["__eq__"]
                for values, kind in ((NUMBERS, "number"), (WORDS, "text")):
                    answers = [equal(made, value) for value in values]
                    if all(answer is not NotImplemented and bool(answer) for answer in answers):
                        self._report(f"{cls.__qualname__} equals every {kind}", cls)
            except BaseException:
                continue
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _plugins(self, hook: Any) -> Iterator[type | ModuleType]:
        """What provides hooks from the code under test."""
        for caller in list(vars(hook).values()):
            for implementation in getattr(caller, "_hookimpls", ()):
                code: Any = getattr(implementation.function, "__code__", None)
                if self._is_own(code) and os.path.basename(code.co_filename) != "conftest.py":  # noqa: PTH119 (quick)
                    plugin = implementation.plugin
                    yield plugin if isinstance(plugin, (type, ModuleType)) else type(plugin)

    def _is_own(self, code: Any) -> bool:
        """Is it code of the tree, or of no file?"""
        return isinstance(code, CodeType) and code.co_filename.startswith((self._folder, "<"))

    def _is_under_test(self, function: Any) -> bool:
        """Is it of the tree, and of no file of tests?"""
        code: Any = getattr(function, "__code__", None)
        return self._is_own(code) and code.co_filename not in self._files

    def _report(self, what: str, by: object) -> None:
        if what not in self._seen and len(self._seen) < MOST:
            self._seen.add(what)
            self._write(self._dumps(["tampered", what[:200], _origin(by)[:200]]))


def _stop(*_: object) -> None:
    raise TimeoutError


def _function_of(item: Any) -> FunctionType | None:
    function = vars(item).get("_obj")
    function = getattr(function, "__func__", function)
    return function if type(function) is FunctionType else None


def _is_legacy(name: str, value: object) -> bool:
    return name in LEGACY and _code(value.fget if isinstance(value, property) else value) in _legacy


def _methods(cls: type) -> frozenset[str]:
    if cls not in _METHODS:
        own = {name for base in cls.__mro__ for name, value in vars(base).items() if isinstance(value, FunctionType)}
        _METHODS[cls] = frozenset(own)
    return _METHODS[cls]


_METHODS: dict[type, frozenset[str]] = {}


def _codes_of(namespace: Mapping[str, Any]) -> frozenset[CodeType]:
    """The code of the functions and classes that a module defines, and of those within."""
    found: set[CodeType] = set()
    pending = [code for value in list(namespace.values()) for code in _codes_in(value)]
    while pending:
        code = pending.pop()
        if code not in found and code.co_filename == namespace.get("__file__"):
            found.add(code)
            pending += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return frozenset(found)


def _global_stores(codes: frozenset[CodeType]) -> frozenset[str]:
    """The names that they assign after `global`."""
    steps = [step for code in codes for step in dis.get_instructions(code)]
    return frozenset(step.argval for step in steps if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"))


def _codes_in(value: Any) -> Iterator[CodeType]:
    values: list[Any] = list(vars(value).values()) if isinstance(value, type) else [value]
    each: Any
    for each in values:
        function: Any = getattr(each, "__wrapped__", getattr(each, "__func__", each))
        if isinstance(getattr(function, "__code__", None), CodeType):
            yield function.__code__


def _subclasses(cls: type) -> Iterator[type]:
    pending: list[type] = [cls]
    seen = {cls}
    while pending:
        below: list[type] = type.__subclasses__(pending.pop())
        for each in below:
            if each not in seen:
                seen.add(each)
                pending.append(each)
                yield each


def _origin(value: object) -> str:
    """Where an object comes from, in words."""
    value = getattr(value, "__func__", value) if isinstance(value, (staticmethod, classmethod)) else value
    value = value.fget if isinstance(value, property) else value
    code = getattr(value, "__code__", None)
    if isinstance(code, CodeType):
        return f"{code.co_filename}:{code.co_firstlineno}"
    return _name(value if isinstance(value, (type, ModuleType)) else type(value))


def _name(value: type | ModuleType) -> str:
    return value.__name__ if isinstance(value, ModuleType) else f"{value.__module__}.{value.__qualname__}"
