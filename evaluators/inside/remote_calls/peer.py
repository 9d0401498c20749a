"""The connection between the tests' process and the candidate's: each asks, and answers while it waits.

A message is a length and JSON, in one of the `FORMS`. Until a request is answered, the other side may ask in turn (a
callback), as deep as calls nest. The candidate may call what it was given, and do to other objects of the tests what
operators do and look at their attributes; the tests may call, go through iterators, and nothing else.
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
    GIVEN,
    NOT_NAMED,
    SPECIAL,
    Packed,
    UncrossableError,
    replaces_method,
    special,
)
from regrade.evaluators.inside.remote_calls.proxies import Known, RemoteCallable, RemoteIterator, StandIn, opaque
from regrade.evaluators.inside.remote_calls.unpacking import Unpacker

PLAIN = frozenset({*CONTAINERS, *FIXED, bool, complex})
OF_FRAMES = (AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType, ModuleType)
"""What leads to the frames of the tests, and so to all they hold."""
OF_GENERATORS = frozenset({"send", "throw", "close"})


class Peer:
    """One side of the connection, and the values that the other side knows by number."""

    def __init__(self, name: str, connection: socket.socket, home: Callable[[str], str]) -> None:
        """
        Args:
            name: `tests` or `candidate`.
            home: name of a module -> `own` (the repository's), `hidden` (its tests) or `elsewhere`.
        """
        self.name = name
        self._connection = connection
        self._home = home
        self._lock = threading.RLock()
        self._own: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._stand_ins: dict[int, Any] = {}
        self._named: dict[int, Any] = {}
        self._indexed = 0
        self._index: dict[int, tuple[Any, str, str]] = {}
        self.uncrossable: list[str] = []
        """Why calls could not cross, since it was last emptied."""
        self.calls = 0
        self.observe: Callable[[list[Packed], list[Packed], dict[str, Any]], None] | None = None
        """Is shown what functions at the boundary are asked and answer, as (arguments, nodes, answer)."""
        self.perform: Callable[[str, list[Any]], Any] = self._perform
        """Does what the other side asks: (operation, arguments) -> value."""

    # ------------------------------------------------------------ what a packer asks

    def _own_module(self, name: str) -> bool:
        return self._home(name) == "own"

    def _is_hidden(self, name: str) -> bool:
        return self._home(name) == "hidden"

    def is_own_class(self, kind: type) -> bool:
        module, name = kind.__module__, kind.__qualname__
        return isinstance(module, str) and self._own_module(module) and _attribute(module, name) is kind

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
        found = self._index.get(id(value))
        return found[1:] if found is not None and found[0] is value else None

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
            raise UncrossableError(f"there is no {module}.{name} on this side")
        self.note_named(value)
        return value

    def _may_be_named(self, value: Any) -> bool:
        """By a candidate: classes that do nothing but hold values, and objects that are told by identity. No function
        but those that it was given: a test that calls what it gets would run it, whatever it does.
        """
        if not isinstance(value, type):
            return self.was_named(value) or self.sentinel(value) is not None
        home = value.__module__
        is_error = issubclass(value, Exception | SystemExit) and home.partition(".")[0] not in NOT_NAMED
        is_given = home in GIVEN and _attribute(home, value.__qualname__) is value and not issubclass(value, type)
        return self.is_own_class(value) or is_error or is_given

    def number(self, value: Any) -> int:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._own)
            self._own.append(value)
        return self._numbers[id(value)]

    def known_by(self, value: Any) -> Known | None:
        if isinstance(value, type):
            found = vars(value).get("_regrade_known") if issubclass(value, BaseException) else None
            return found if isinstance(found, tuple) else None
        return value._regrade_known if isinstance(type(value), type) and issubclass(type(value), StandIn) else None

    def stand_in(self, side: str, number: int, kind: str, looks: Packed) -> Any:
        if side == self.name:
            return self._own[number]
        if self.name == "tests" and kind not in ("callable", "iterator"):
            raise UncrossableError("an object of the candidate's")
        if number not in self._stand_ins:
            self._stand_ins[number] = self._new_stand_in((side, number, kind, looks))
        return self._stand_ins[number]

    def _new_stand_in(self, known: Known) -> Any:
        _, _, kind, looks = known
        if kind == "callable":
            return RemoteCallable(self, known)
        if kind == "iterator":
            return RemoteIterator(self, known)
        if kind == "opaque":
            return opaque(tuple(looks))(self, known)
        bases = [self.resolve(module, name) for module, name in looks]
        base = next(each for each in bases if isinstance(each, type) and issubclass(each, BaseException))
        return type("Error", (base,), {"_regrade_known": known})

    # ------------------------------------------------------------ asking

    def ask(self, operation: str, *arguments: Any) -> Any:
        """What the other side answers; what changed in place there is changed here.

        Raises:
            UncrossableError: an argument, the answer or a change can't cross, or the other side is gone.
        """
        with self._lock:
            try:
                self.calls += 1
                packer = Packer(self)
                packed = [packer.pack(each) for each in arguments]
                send(self._connection, {"ask": operation, "arguments": packed, "nodes": packer.nodes})
                while True:
                    message = receive(self._connection)
                    if "ask" not in message:
                        if self.observe is not None and operation == "function":
                            self.observe(packed, packer.nodes, message)
                        return self._answer(message, packer.values)
                    self._serve(message)
            except RecursionError:
                self.uncrossable.append("it is nested too deeply")
                raise UncrossableError("it is nested too deeply") from None
            except UncrossableError as problem:
                self.uncrossable.append(str(problem))
                raise

    def _answer(self, message: dict[str, Any], known: list[Any]) -> Any:
        if "uncrossable" in message:
            raise UncrossableError(str(message["uncrossable"]))
        unpacker = Unpacker(self, message["nodes"], known)
        unpacker.change(message["changes"])
        value = unpacker.unpack(message["value"])
        if message["raised"]:
            if not isinstance(value, BaseException):
                raise UncrossableError("it raised what is no error")
            raise value
        return value

    # ------------------------------------------------------------ answering

    def _is_open(self, operation: str, value: Any, name: str) -> bool:
        """May the candidate do this to an attribute of an object of the tests?

        An instance of a subclass of the repository's own class is as open as the code of that class needs it, which
        does not put other functions in the place of its methods. Others
        are looked at only: who could write to them could write to a test case. Of code nothing is to be seen but what
        was put there, since a function's globals lead everywhere; of a generator nothing but what drives it, since its
        frame does; and nothing that pytest or unittest define, be it a test case, a fixture or a mock, by which one
        could make assertions hold.
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
        """Answer until the other side is gone."""
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
            arguments = [unpacker.unpack(each) for each in message["arguments"]]
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
            answer = {"uncrossable": "it is nested too deeply"}
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
        raise UncrossableError(f"{operation} was asked for")

    def _perform_for_the_candidate(self, operation: str, value: Any, *arguments: Any) -> Any:
        """Only to what it was given by number: what else it names, a class or a builtin, it has on its own side."""
        if id(value) not in self._numbers:
            raise UncrossableError(f"{operation} was asked for, of what was not given")
        if operation == "call":
            positional, keywords = arguments
            return value(*positional, **keywords)
        if operation == "special" and not _is_of_test_tools(value, ""):
            name, rest = arguments
            if name in SPECIAL:
                found = special(value, name)
                return NotImplemented if found is None else getattr(type(value), name)(value, *rest)
        if operation in ("attribute", "set", "delete") and self._is_open(operation, value, arguments[0]):
            act: Any = {"attribute": getattr, "set": setattr, "delete": delattr}[operation]
            return act(value, *arguments)
        raise UncrossableError(f"{operation} was asked for")


def _is_of_test_tools(value: Any, name: str) -> bool:
    """Is the attribute one that pytest or unittest give to the value? So is all of a list of calls that a mock keeps.

    A mock's children are not: it makes them as they are asked for.
    """
    kinds = type(value).__mro__
    first = next(
        (place for place, kind in enumerate(kinds) if str(kind.__module__).partition(".")[0] in NOT_NAMED), None
    )
    if first is None:
        return False
    return isinstance(value, (*CONTAINERS, *FIXED)) or any(name in vars(kind) for kind in kinds[first:])


def iterate(values: Any) -> Generator[Any, Any, Any]:
    """Go through what a generator function of the candidate's gave, as a generator."""
    return (yield from values)


def _index_of_globals(modules: list[str]) -> dict[int, tuple[Any, str, str]]:
    """Id -> object, module and path of attributes, of the globals that are told by identity: neither code nor plain, or
    instances of subclasses of plain types, and the like among their attributes.
    """
    found: dict[int, tuple[Any, str, str]] = {}
    for module in modules:
        waiting = [
            (name, value) for name, value in list(vars(sys.modules[module]).items()) if not name.startswith("__")
        ]
        for path, value in waiting:
            if isinstance(value, type) and value.__module__ == module:
                inner = [(f"{path}.{name}", each) for name, each in list(vars(value).items()) if type(each) is object]
                found |= {id(each): (each, module, name) for name, each in inner}
            is_plain = value is None or type(value) in PLAIN or isinstance(value, ModuleType | type) or callable(value)
            if is_plain or id(value) in found:
                continue
            found[id(value)] = (value, module, path)
            if isinstance(value, FIXED):
                waiting += [(f"{path}.{name}", each) for name, each in list(getattr(value, "__dict__", {}).items())]
    return found


def _attribute(module: str, name: str) -> Any:
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value
