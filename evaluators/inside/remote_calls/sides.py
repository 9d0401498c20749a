"""Tests in one process, the candidate's code in another: the two ends, each in a sandbox of its own.

The tests' process has the base tree, whose code is trusted. Functions at the boundary (`boundary.py`) call the
candidate's process, which has the patched tree and no tests. So no code of a candidate runs where the verdict is
made, and of the tests it sees only the arguments of calls.

Lines: `["crossed", test, number of calls that crossed, reason why one did not]`;
`["called", arguments, nodes, answer]`, and `["unrecorded", key]` if not all calls of a function are recorded;
for inputs `["answer", index, answer]` (see `answer_inputs`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Collection
from importlib.machinery import PathFinder
from typing import Any

from regrade.evaluators.inside.remote_calls.boundary import (
    BINDINGS,
    Finder,
    FunctionRegistry,
    stub_transform,
)
from regrade.evaluators.inside.remote_calls.messages import receive, send
from regrade.evaluators.inside.remote_calls.peer import Peer, iterate
from regrade.evaluators.inside.remote_calls.plain_values import UncrossableError, global_named

Write = Callable[[str], None]
CONNECT_SECONDS = 20.0
MOST_VALUES = 30
LONGEST_ANSWER = 200_000
"""Largest answer to an input, in characters of JSON."""
MOST_CALLS, LONGEST_CALL = 400, 40_000
"""Most recorded calls of a function, and the largest one with its answer, in characters of JSON."""


class RemoteCaller:
    """The callee of the replaced bodies at the boundary, in the tests' process."""

    bindings = BINDINGS

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def __call__(self, module: str, key: str, positional: Any, keywords: Any) -> Any:
        return self._peer.request("function", module, key, tuple(positional), keywords)

    def iterate(self, module: str, key: str, positional: Any, keywords: Any) -> Any:
        return iterate(self(module, key, positional, keywords))

    def asynchronous(self) -> Any:
        self._peer.uncrossable.append("a coroutine")
        raise UncrossableError("a coroutine")


class CrossingRecorder:
    """A pytest plugin that records for each test whether its calls crossed, and the calls themselves."""

    def __init__(self, peer: Peer, finder: Finder, write: Write) -> None:
        self._peer = peer
        self._finder = finder
        self._write = write
        self._seen: dict[str, set[int]] = {}
        peer.observe = self._observe

    def _observe(self, arguments: list[Any], nodes: list[Any], answer: dict[str, Any]) -> None:
        known = known_names(answer, _is_imported_class)
        line = json.dumps(["called", arguments, nodes, {**answer, "known": known}])
        seen = self._seen.setdefault(f"{arguments[0]}:{arguments[1]}", set())
        if hash(line) in seen:
            return
        if len(seen) >= MOST_CALLS or len(line) >= LONGEST_CALL:
            line = json.dumps(["unrecorded", arguments[1]])
        if hash(line) not in seen:
            seen.add(hash(line))
            self._write(line)

    def pytest_sessionstart(self) -> None:
        """pytest rewrites the assertions of the files that it is given, also of those that only have doctests."""
        self._finder.install()

    def pytest_runtest_logstart(self) -> None:
        self._peer.uncrossable.clear()
        self._peer.calls = 0

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        problem = self._peer.uncrossable[0][:200] if self._peer.uncrossable else ""
        self._write(json.dumps(["crossed", nodeid, self._peer.calls, problem]))


def tests_side(request: dict[str, Any], write: Write) -> CrossingRecorder:
    """Wait for the candidate's process, and replace functions at the boundary. Raises OSError: it does not connect."""
    crossing = request["crossing"]
    connection = _accept(crossing["socket"])
    connection.settimeout(None)
    peer = Peer("tests", connection, module_origins(request["root"], frozenset(crossing["hidden"])))
    transforms = {path: stub_transform(cut["cut"], cut["added"]) for path, cut in crossing["files"].items()}
    finder = Finder(request["root"], transforms, RemoteCaller(peer))
    finder.install()
    return CrossingRecorder(peer, finder, write)


def answer_inputs(request: dict[str, Any], write: Write) -> int:
    """Send each input to the candidate's process, and record its answer as received.

    No value is rebuilt from an answer here. From an iterator the first `MOST_VALUES` values are requested.
    """
    connection = _accept(request["crossing"]["socket"])
    connection.settimeout(request["crossing"]["input_seconds"])
    is_known = _importing(request["root"], request["crossing"]["hidden"])
    for index, (arguments, nodes) in enumerate(request["crossing"]["inputs"]):
        try:
            answer = _request(connection, {"ask": "function", "arguments": arguments, "nodes": nodes})
            value = answer.get("value")
            if isinstance(value, list) and value[:1] == ["number"] and value[3:4] == ["iterator"]:
                answer["values"] = _values(connection, value)
            answer["known"] = known_names(answer, is_known)
            line = json.dumps(["answer", index, answer])
        except (UncrossableError, OSError, RecursionError) as problem:
            write(json.dumps(["answer", index, {"gone": str(problem)}]))
            return 0  # after a failure no other input is sent
        write(line if len(line) < LONGEST_ANSWER else json.dumps(["answer", index, {"gone": "the answer is too long"}]))
    return 0


def known_names(answer: Any, is_known: Callable[[str, str], bool]) -> list[list[str]]:
    """Those of the classes that an answer names which the tests' side has. Nothing is rebuilt from the answer."""
    named: set[tuple[str, str]] = set()
    waiting = [answer]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list) and len(value) == 3 and value[0] == "global":
            if isinstance(value[1], str) and isinstance(value[2], str):
                named.add((value[1], value[2]))
        elif isinstance(value, list):
            waiting += value
    return [[module, name] for module, name in sorted(named) if is_known(module, name)]


def _is_imported_class(module: str, name: str) -> bool:
    return isinstance(global_named(module, name), type)


def _importing(root: str, hidden: Collection[str]) -> Callable[[str, str], bool]:
    """Is it a class, of a module of the tree or an imported one? The module is imported first, unless it is a test."""

    @functools.cache
    def is_own(top: str) -> bool:
        spec = PathFinder.find_spec(top)
        return spec is not None and str(spec.origin).startswith(f"{root.rstrip('/')}/")

    def is_known(module: str, name: str) -> bool:
        path = f"{module.replace('.', '/')}.py"
        is_test = any(each == path or each.endswith(f"/{path}") for each in hidden)
        if module not in sys.modules and not is_test and is_own(module.partition(".")[0]):
            with contextlib.suppress(BaseException):
                importlib.import_module(module)
        return _is_imported_class(module, name)

    return is_known


def _request(connection: socket.socket, message: dict[str, Any]) -> dict[str, Any]:
    send(connection, message)
    answer = receive(connection)
    if "ask" in answer:
        raise UncrossableError("the other process sent a request instead of an answer")
    return answer


def _values(connection: socket.socket, iterator: list[Any]) -> list[Any]:
    values: list[Any] = []
    while len(values) < MOST_VALUES:
        answer = _request(connection, {"ask": "next", "arguments": [iterator], "nodes": []})
        values.append(answer)
        if answer.get("raised", True):
            break
    return values


def _accept(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(CONNECT_SECONDS)
    listener.bind(path)
    os.chmod(path, 0o777)  # noqa: PTH101 (the other process is another user)
    listener.listen(1)
    connection, _ = listener.accept()
    listener.close()
    return connection


def candidate_side(request: dict[str, Any]) -> int:
    """Serve the tests' process until it exits."""
    crossing = request["crossing"]
    connection = _connect(crossing["socket"])
    forms = {path: {**cut["cut"], **cut["added"]} for path, cut in crossing["files"].items()}
    peer = Peer("candidate", connection, module_origins(request["root"], frozenset()))
    registry = FunctionRegistry(forms, crossing["computed"], peer)
    transforms = {path: registry.transform_of(path) for path in {**forms, **crossing["computed"]}}
    Finder(request["root"], transforms, registry).install()
    perform_other = peer.perform

    def perform(operation: str, arguments: list[Any]) -> Any:
        if operation != "function":
            return perform_other(operation, arguments)
        module, key, positional, keywords = arguments
        return registry.call(module, key, positional, keywords)

    peer.perform = perform
    peer.serve()
    return 0


def _connect(path: str) -> socket.socket:
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def module_origins(root: str, hidden: frozenset[str]) -> Callable[[str], str]:
    prefix = root.rstrip("/") + "/"

    def origin_of(name: str) -> str:
        path = getattr(sys.modules.get(name), "__file__", None)
        if not isinstance(path, str) or not path.startswith(prefix):
            return "elsewhere"
        return "hidden" if path[len(prefix) :] in hidden else "own"

    return origin_of
