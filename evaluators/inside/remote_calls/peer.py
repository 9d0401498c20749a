"""The connection between the tests' process and the candidate's: each side sends requests, and serves while it waits.

Until a request is answered, the other side may send requests in turn (callbacks), as deep as calls nest. The candidate
may call functions that it received, apply operators to other objects of the tests and read their attributes. The tests
may call functions and advance iterators, and nothing else.
"""

from __future__ import annotations

import importlib
import socket
import sys
import threading
from collections.abc import Callable, Generator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType, ModuleType
from typing import Any

from regrade.evaluators.inside.remote_calls.messages import receive, send
from regrade.evaluators.inside.remote_calls.packing import Packer, changes
from regrade.evaluators.inside.remote_calls.plain_values import (
    CODE,
    CONTAINERS,
    FIXED,
    NAMEABLE,
    SPECIAL,
    UNNAMEABLE,
    Packed,
    UncrossableError,
    replaces_method,
    special_method,
)
from regrade.evaluators.inside.remote_calls.proxies import (
    Proxy,
    RemoteCallable,
    RemoteIterator,
    RemoteReference,
    opaque,
)
from regrade.evaluators.inside.remote_calls.unpacking import Unpacker

PLAIN = frozenset({*CONTAINERS, *FIXED, bool, complex})
OF_FRAMES = (AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType, ModuleType)
"""Types that give access to the frames of the tests, and so to all their values."""
OF_GENERATORS = frozenset({"send", "throw", "close"})


class Peer:
    """One side of the connection, and its values that the other side refers to by number."""

    def __init__(self, name: str, connection: socket.socket, origin_of: Callable[[str], str]) -> None:
        """
        Args:
            name: `tests` or `candidate`.
            origin_of: name of a module -> `own` (the repository's), `hidden` (its tests) or `elsewhere`.
        """
        self.name = name
        self._connection = connection
        self._origin_of = origin_of
        self._lock = threading.RLock()
        self._own: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._proxies: dict[int, Any] = {}
        self._named: dict[int, Any] = {}
        self._received: dict[int, tuple[Any, list[tuple[str, str]], list[tuple[str, Any]]]] = {}
        self._extended: dict[int, Any] = {}
        self._indexed_modules = 0
        self._other_names: dict[type, list[tuple[str, str]]] = {}
        self.computed_by_class: dict[tuple[str, str], list[str]] = {}
        """Module and name of a class -> its properties that the base lacks."""
        self._indexed = 0
        self._index: dict[int, tuple[Any, str, str]] = {}
        self.uncrossable: list[str] = []
        """Why calls did not cross; the reader clears it."""
        self.calls = 0
        self.observe: Callable[[list[Packed], list[Packed], dict[str, Any]], None] | None = None
        """Called with each call of a function at the boundary: (arguments, nodes, answer)."""
        self.perform: Callable[[str, list[Any]], Any] = self._perform
        """Performs a request of the other side: (operation, arguments) -> value."""

    # ------------------------------------------------------------ interface of packers

    def _own_module(self, name: str) -> bool:
        return self._origin_of(name) == "own"

    def _is_hidden(self, name: str) -> bool:
        return self._origin_of(name) == "hidden"

    def is_own_class(self, kind: type) -> bool:
        module, name = kind.__module__, kind.__qualname__
        return isinstance(module, str) and self._own_module(module) and _attribute(module, name) is kind

    def class_names(self, kind: type) -> list[tuple[str, str]]:
        if self.name == "tests":
            return [(kind.__module__, kind.__qualname__)] if self.is_own_class(kind) else []
        names: list[tuple[str, str]] = []
        for base in kind.__mro__:
            if self.is_own_class(base):
                names.append((base.__module__, base.__qualname__))
            names += self.other_names(base)
        return names

    def other_names(self, kind: type) -> list[tuple[str, str]]:
        if self.name == "tests" or not self._own_module(str(kind.__module__)):
            return []
        if len(sys.modules) != self._indexed_modules:
            self._indexed_modules = len(sys.modules)
            self._other_names.clear()
        if kind not in self._other_names:
            own = (kind.__module__, kind.__qualname__)
            self._other_names[kind] = [
                (module, name)
                for module in list(sys.modules)
                if self._own_module(module)
                for name, value in list(vars(sys.modules[module]).items())
                if value is kind and (module, name) != own
            ]
        return self._other_names[kind]

    def received(self, value: Any) -> tuple[Any, list[tuple[str, str]], list[tuple[str, Any]]]:
        return self._received.get(id(value), (value, [], []))

    def note_received(self, value: Any, names: list[tuple[str, str]], attributes: list[tuple[str, Any]]) -> None:
        self._received[id(value)] = (value, names, attributes)

    def note_extended(self, value: Any) -> None:
        self._extended[id(value)] = value

    def is_extended(self, value: Any) -> bool:
        """Is it an instance of a class that the tests lack, which they have as one of a base?"""
        return id(value) in self._extended

    def computed(self, value: Any) -> list[tuple[str, Any]]:
        attributes = []
        for name in self._computed_names(value):
            try:
                attributes.append((name, getattr(value, name)))
            except Exception:
                continue  # the instance is not complete
        return attributes

    def is_computed(self, value: Any, name: str) -> bool:
        return name in self._computed_names(value)

    def _computed_names(self, value: Any) -> list[str]:
        if not self.computed_by_class:
            return []
        names = [self.computed_by_class.get((kind.__module__, kind.__qualname__), []) for kind in type(value).__mro__]
        return [name for some in names for name in some]

    def may_name(self, module: str) -> bool:
        return self.name == "candidate" or not self._is_hidden(module)

    def note_named(self, value: Any) -> None:
        self._named[id(value)] = value

    def was_named(self, value: Any) -> bool:
        return id(value) in self._named

    def sentinel(self, value: Any) -> tuple[str, str] | None:
        modules = [name for name in list(sys.modules) if self._own_module(name)]
        if len(modules) != self._indexed:
            self._indexed = len(modules)
            self._index = _index_of_globals(modules)
        entry = self._index.get(id(value))
        return entry[1:] if entry is not None and entry[0] is value else None

    def resolve(self, module: str, name: str) -> Any:
        if self.name == "candidate":
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise UncrossableError(f"{module} can't be imported: {error}") from None
        value = _attribute(module, name)
        if self.name == "tests" and not self._may_be_named(value):
            raise UncrossableError(f"{module}.{name} may not be named by a candidate")
        if value is None:
            raise UncrossableError(f"{module}.{name} does not exist on this side")
        self.note_named(value)
        return value

    def _may_be_named(self, value: Any) -> bool:
        """May a candidate name it? Classes of plain values and objects that are compared by identity, but a function
        only if the candidate received it: a test that calls its result would run any other one.
        """
        if not isinstance(value, type):
            return self.was_named(value) or self.sentinel(value) is not None
        module = value.__module__
        if issubclass(value, BaseException):
            return self._is_ordinary_error(value)
        is_standard = (
            module in NAMEABLE and _attribute(module, value.__qualname__) is value and not issubclass(value, type)
        )
        return self.is_own_class(value) or is_standard

    def _is_ordinary_error(self, kind: type[BaseException]) -> bool:
        """May a candidate raise it where the tests run? Test tools take some errors for no failure: those of their own
        packages, and whatever is no `Exception`. So only errors of the repository, of the standard library, and of
        the packages that modules of the repository import.
        """
        packages = {str(base.__module__).partition(".")[0] for base in kind.__mro__}
        if not issubclass(kind, Exception | SystemExit) or packages & UNNAMEABLE:
            return False
        is_other = packages - sys.stdlib_module_names and not self.is_own_class(kind)
        return not is_other or kind.__module__.partition(".")[0] in self._imported_packages()

    def _imported_packages(self) -> set[str]:
        """Packages from which the modules of the repository imported anything, and their own."""
        packages = set()
        for name in [name for name in list(sys.modules) if self._own_module(name)]:
            packages.add(name.partition(".")[0])
            for value in list(vars(sys.modules[name]).values()):
                origin = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
                if isinstance(origin, str):
                    packages.add(origin.partition(".")[0])
        return packages

    def number(self, value: Any) -> int:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._own)
            self._own.append(value)
        return self._numbers[id(value)]

    def reference_of(self, value: Any) -> RemoteReference | None:
        if isinstance(value, type):
            reference = vars(value).get("_regrade_reference") if issubclass(value, BaseException) else None
            return reference if isinstance(reference, tuple) else None
        return value._regrade_reference if isinstance(type(value), type) and issubclass(type(value), Proxy) else None

    def proxy(self, side: str, number: int, kind: str, traits: Packed) -> Any:
        if side == self.name:
            return self._own[number]
        if self.name == "tests" and kind not in ("callable", "iterator"):
            raise UncrossableError("an object of the candidate")
        if number not in self._proxies:
            self._proxies[number] = self._new_proxy((side, number, kind, traits))
        return self._proxies[number]

    def _new_proxy(self, reference: RemoteReference) -> Any:
        _, _, kind, traits = reference
        if kind == "callable":
            return RemoteCallable(self, reference)
        if kind == "iterator":
            return RemoteIterator(self, reference)
        if kind == "opaque":
            return opaque(tuple(traits))(self, reference)
        bases = [self.resolve(module, name) for module, name in traits]
        base = next(item for item in bases if isinstance(item, type) and issubclass(item, BaseException))
        return type("Error", (base,), {"_regrade_reference": reference})

    # ------------------------------------------------------------ requests

    def request(self, operation: str, *arguments: Any) -> Any:
        """The answer of the other side; changes that it made to shared values are applied here.

        Raises:
            UncrossableError: an argument, the answer or a change can't cross, or the other process has exited.
        """
        with self._lock:
            try:
                self.calls += 1
                packer = Packer(self)
                packed = [packer.pack(argument) for argument in arguments]
                send(self._connection, {"ask": operation, "arguments": packed, "nodes": packer.nodes})
                while True:
                    message = receive(self._connection)
                    if "ask" not in message:
                        if self.observe is not None and operation == "function":
                            self.observe(packed, packer.nodes, message)
                        return self._answer(operation, arguments, message, packer.values)
                    self._serve(message)
            except RecursionError:
                self.uncrossable.append("a value is nested too deeply")
                raise UncrossableError("a value is nested too deeply") from None
            except UncrossableError as problem:
                self.uncrossable.append(str(problem))
                raise

    def _answer(self, operation: str, arguments: tuple[Any, ...], message: dict[str, Any], shared: list[Any]) -> Any:
        if "uncrossable" in message:
            raise UncrossableError(str(message["uncrossable"]))
        unpacker = Unpacker(self, message["nodes"], shared)
        unpacker.change(message["changes"])
        value = unpacker.unpack(message["value"])
        if _is_suppressed(operation, arguments, value, is_raised=message["raised"]):
            raise UncrossableError("the other process suppressed a failure of the test")
        if message["raised"]:
            if not isinstance(value, BaseException):
                raise UncrossableError("the other process raised a value that is not an exception")
            if isinstance(value, StopIteration | StopAsyncIteration) and not _may_stop(operation, arguments):
                raise UncrossableError(f"{type(value).__name__}, which ends a loop of the tests without an error")
            raise value
        return value

    # ------------------------------------------------------------ serving

    def _is_open(self, operation: str, value: Any, name: str) -> bool:
        """May the candidate do this to an attribute of an object of the tests?

        Attributes of an instance of a subclass of the repository's own class may be read and written, as the code of
        that class does; but no method may be replaced. Attributes of other objects may only be read: a test case is
        among them. Of a function, only attributes that were set on it may be read, since its globals lead everywhere;
        of a generator, only its `OF_GENERATORS`, since its frame does the same. Attributes defined by pytest or
        unittest (of a test case, a fixture, a mock) are closed: with them a candidate could make assertions pass.
        """
        if name.startswith("__"):
            return False
        if isinstance(value, OF_FRAMES):
            return operation == "attribute" and isinstance(value, GeneratorType) and name in OF_GENERATORS
        if _is_of_test_tools(value, name):
            return False
        if isinstance(value, CODE):
            return operation == "attribute" and name in vars(value)
        if any(self.is_own_class(kind) for kind in type(value).__mro__):
            return operation == "attribute" or not replaces_method(value, name)
        return operation == "attribute" and not name.startswith("_")

    def serve(self) -> None:
        """Serve requests until the other process exits."""
        while True:
            try:
                message = receive(self._connection)
            except UncrossableError:
                return
            self._serve(message)

    def _serve(self, message: dict[str, Any]) -> None:
        unpacker = Unpacker(self, message["nodes"])
        raised = False
        try:
            arguments = [unpacker.unpack(argument) for argument in message["arguments"]]
            try:
                value = self.perform(message["ask"], arguments)
            except UncrossableError:
                raise
            except BaseException as error:
                value, raised = error, True
            packer = Packer(self, unpacker.values)
            packed: Packed = packer.pack_error(value) if raised else packer.pack(value)
            changed = changes(packer, message["nodes"])
            answer = {"value": packed, "raised": raised, "nodes": packer.nodes, "changes": changed}
        except UncrossableError as problem:
            answer = {"uncrossable": str(problem)}
        except RecursionError:
            answer = {"uncrossable": "a value is nested too deeply"}
        send(self._connection, answer)

    def _perform(self, operation: str, arguments: list[Any]) -> Any:
        if self.name == "tests":
            return self._perform_for_the_candidate(operation, *arguments)
        if operation == "call":
            function, positional, keywords = arguments
            return function(*positional, **keywords)
        if operation == "next":
            return next(arguments[0])
        if operation in ("send", "throw", "close"):
            return getattr(arguments[0], operation)(*arguments[1:])
        if operation == "attribute":
            return getattr(*arguments)
        raise UncrossableError(f"operation {operation!r} is not allowed")

    def _perform_for_the_candidate(self, operation: str, value: Any, *arguments: Any) -> Any:
        """Only on values that it received by number: it has classes and builtins on its own side."""
        if id(value) not in self._numbers:
            raise UncrossableError(f"operation {operation!r} on a value that was not passed")
        if operation == "call":
            positional, keywords = arguments
            return value(*positional, **keywords)
        if operation == "special" and not _is_of_test_tools(value, ""):
            name, rest = arguments
            if name in SPECIAL:
                method = special_method(value, name)
                return NotImplemented if method is None else getattr(type(value), name)(value, *rest)
        if operation in ("attribute", "set", "delete") and self._is_open(operation, value, arguments[0]):
            act: Any = {"attribute": getattr, "set": setattr, "delete": delattr}[operation]
            return act(value, *arguments)
        raise UncrossableError(f"operation {operation!r} is not allowed")


def _may_stop(operation: str, arguments: tuple[Any, ...]) -> bool:
    """May the answer be the end of an iteration? It must be one that the tests advance."""
    if operation == "function":
        return str(arguments[1]).partition("#")[0].rpartition(".")[2] in ("__next__", "__anext__")
    return operation in ("next", "send", "throw", "special", "attribute")


def _is_suppressed(operation: str, arguments: tuple[Any, ...], value: Any, *, is_raised: bool) -> bool:
    """Did a context manager or generator of the candidate receive a failure of the test, and end it?"""
    if operation == "throw":
        received = arguments[1:2]
        is_over = not is_raised or isinstance(value, StopIteration | StopAsyncIteration)
    elif operation == "function" and str(arguments[1]).partition("#")[0].rpartition(".")[2] == "__exit__":
        received, is_over = arguments[2], not is_raised and bool(value)
    else:
        return False
    return is_over and any(map(_is_failure, received))


def _is_failure(error: Any) -> bool:
    """Is it an error that test tools take for the outcome of a test?"""
    packages = {str(kind.__module__).partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, AssertionError) or bool(packages & UNNAMEABLE)


def _is_of_test_tools(value: Any, name: str) -> bool:
    """Is the attribute defined by pytest or unittest? So is all of a mock's list of calls, but not its children."""
    kinds = type(value).__mro__
    first = next(
        (position for position, kind in enumerate(kinds) if str(kind.__module__).partition(".")[0] in UNNAMEABLE), None
    )
    if first is None:
        return False
    return isinstance(value, (*CONTAINERS, *FIXED)) or any(name in vars(kind) for kind in kinds[first:])


def iterate(values: Any) -> Generator[Any, Any, Any]:
    """Iterate over the result of a generator function of the candidate, as a generator."""
    return (yield from values)


def _index_of_globals(modules: list[str]) -> dict[int, tuple[Any, str, str]]:
    """Id -> object, module and attribute path, of the globals that are compared by identity (neither code nor plain, or
    instances of subclasses of plain types), and of such values among their attributes.
    """
    index: dict[int, tuple[Any, str, str]] = {}
    for module in modules:
        waiting = [
            (name, value) for name, value in list(vars(sys.modules[module]).items()) if not name.startswith("__")
        ]
        for path, value in waiting:
            if isinstance(value, type) and value.__module__ == module:
                inner = [(f"{path}.{name}", item) for name, item in list(vars(value).items()) if type(item) is object]
                index |= {id(item): (item, module, name) for name, item in inner}
            is_plain = value is None or type(value) in PLAIN or isinstance(value, ModuleType | type) or callable(value)
            if is_plain or id(value) in index:
                continue
            index[id(value)] = (value, module, path)
            if isinstance(value, FIXED):
                waiting += [(f"{path}.{name}", item) for name, item in list(getattr(value, "__dict__", {}).items())]
    return index


def _attribute(module: str, name: str) -> Any:
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value
