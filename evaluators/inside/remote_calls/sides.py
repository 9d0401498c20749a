"""Tests in one process, the candidate's code in another one: the two ends, each in a sandbox of its own.

The tests' process holds the base tree, whose code is trusted, and takes the bodies of the functions at the boundary
from the candidate's process (`boundary.py`), which holds the patched tree and no tests. So nothing that a candidate
wrote runs where a verdict is made, and it sees of the tests the arguments of calls alone.

Lines: `["crossed", test, calls that crossed, why one could not]`; where calls are observed
`["called", arguments, nodes]`; of functions that are watched `["watched", arguments, nodes, answer]`, or
`["unwatched", key]` where a call can't be told; and of inputs `["answer", place, answer]` (see `answer_inputs`).
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

from regrade.evaluators.inside.remote_calls.boundary import Finder, Noted, asking, noting
from regrade.evaluators.inside.remote_calls.messages import receive, send
from regrade.evaluators.inside.remote_calls.peer import Peer, iterate
from regrade.evaluators.inside.remote_calls.plain_values import UncrossableError

Write = Callable[[str], None]
CONNECT_SECONDS = 20.0
INPUT_SECONDS = 2.0
"""How long one input may take."""
MOST_VALUES = 30
LONGEST_ANSWER = 200_000
"""Characters of JSON that the answer to an input may take."""
MOST_CALLS, LONGEST_CALL = 60, 20_000
"""How many different calls of a function are told, and how many characters of JSON one may take."""


class RemoteCaller:
    """What stands in the bodies at the boundary, in the tests' process."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def __call__(self, module: str, key: str, positional: Any, keywords: Any) -> Any:
        return self._peer.ask("function", module, key, tuple(positional), keywords)

    def iterate(self, module: str, key: str, positional: Any, keywords: Any) -> Any:
        return iterate(self(module, key, positional, keywords))

    def asynchronous(self) -> Any:
        self._peer.uncrossable.append("a coroutine")
        raise UncrossableError("a coroutine")


class CrossingRecorder:
    """A pytest plugin that writes down for each test whether its calls crossed, and what calls asked if that is wanted.

    Calls are told that cross by value alone: others can't be repeated without the tests.
    """

    def __init__(self, peer: Peer, write: Write, *, observed: bool, watched: Collection[str]) -> None:
        self._peer = peer
        self._write = write
        self._watched = watched
        self._seen: dict[str, set[str]] = {}
        if observed or watched:
            peer.observe = self._observe

    def _observe(self, arguments: list[Any], nodes: list[Any], answer: dict[str, Any]) -> None:
        is_watched = arguments[1] in self._watched
        if self._watched and not is_watched:
            return
        line = json.dumps(["watched", arguments, nodes, answer] if is_watched else ["called", arguments, nodes])
        seen = self._seen.setdefault(f"{arguments[0]}:{arguments[1]}", set())
        if line in seen:
            return
        can_be_told = len(seen) < MOST_CALLS and len(line) < LONGEST_CALL and '["number", ' not in line
        if can_be_told:
            self._write(line)
        elif is_watched:
            line = json.dumps(["unwatched", arguments[1]])
            if line not in seen:
                self._write(line)
        if can_be_told or is_watched:
            seen.add(line)

    def pytest_runtest_logstart(self) -> None:
        self._peer.uncrossable.clear()
        self._peer.calls = 0

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        problem = self._peer.uncrossable[0][:200] if self._peer.uncrossable else ""
        self._write(json.dumps(["crossed", nodeid, self._peer.calls, problem]))


def tests_side(request: dict[str, Any], write: Write) -> CrossingRecorder:
    """Wait for the candidate's process, and cut the modules at the boundary. Raises OSError where it does not come."""
    crossing = request["crossing"]
    connection = _accepted(crossing["socket"])
    connection.settimeout(None)
    peer = Peer("tests", connection, _homes(request["root"], frozenset(crossing["hidden"])))
    transforms = {path: asking(cut["cut"], cut["added"]) for path, cut in crossing["files"].items()}
    Finder(request["root"], transforms, RemoteCaller(peer)).install()
    return CrossingRecorder(peer, write, observed=crossing["observed"], watched=crossing["watched"])


def answer_inputs(request: dict[str, Any], write: Write) -> int:
    """Put each of the inputs to the candidate's process, and write down what it answers, as it came.

    Nothing of the answer is made into a value here. Of an iterator the first values are asked for.
    """
    connection = _accepted(request["crossing"]["socket"])
    connection.settimeout(INPUT_SECONDS)
    for place, (arguments, nodes) in enumerate(request["crossing"]["inputs"]):
        try:
            answer = _answered(connection, {"ask": "function", "arguments": arguments, "nodes": nodes})
            value = answer.get("value")
            if isinstance(value, list) and value[:1] == ["number"] and value[3:4] == ["iterator"]:
                answer["values"] = _values(connection, value)
            line = json.dumps(["answer", place, answer])
        except (UncrossableError, OSError, RecursionError) as problem:
            write(json.dumps(["answer", place, {"gone": str(problem)}]))
            return 0  # whoever does not answer one input is asked no other
        write(line if len(line) < LONGEST_ANSWER else json.dumps(["answer", place, {"gone": "too long an answer"}]))
    return 0


def _answered(connection: socket.socket, message: dict[str, Any]) -> dict[str, Any]:
    send(connection, message)
    answer = receive(connection)
    if "ask" in answer:
        raise UncrossableError("it asks back")
    return answer


def _values(connection: socket.socket, iterator: list[Any]) -> list[Any]:
    found: list[Any] = []
    while len(found) < MOST_VALUES:
        answer = _answered(connection, {"ask": "next", "arguments": [iterator], "nodes": []})
        found.append(answer)
        if answer.get("raised", True):
            break
    return found


def _accepted(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(CONNECT_SECONDS)
    listener.bind(path)
    os.chmod(path, 0o777)  # noqa: PTH101 (the other process is another user)
    listener.listen(1)
    connection, _ = listener.accept()
    listener.close()
    return connection


def candidate_side(request: dict[str, Any]) -> int:
    """Serve the tests' process until it is gone."""
    crossing = request["crossing"]
    connection = _connected(crossing["socket"])
    noted = Noted()
    peer = Peer("candidate", connection, _homes(request["root"], frozenset()))
    transforms = {path: noting([*cut["cut"], *cut["added"]]) for path, cut in crossing["files"].items()}
    Finder(request["root"], transforms, noted).install()
    plainly = peer.perform

    def perform(operation: str, arguments: list[Any]) -> Any:
        if operation != "function":
            return plainly(operation, arguments)
        module, key, positional, keywords = arguments
        return noted.function(module, key)(*positional, **keywords)

    peer.perform = perform
    peer.serve()
    return 0


def _connected(path: str) -> socket.socket:
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


def _homes(root: str, hidden: frozenset[str]) -> Callable[[str], str]:
    prefix = root.rstrip("/") + "/"

    def home(name: str) -> str:
        path = getattr(sys.modules.get(name), "__file__", None)
        if not isinstance(path, str) or not path.startswith(prefix):
            return "elsewhere"
        return "hidden" if path[len(prefix) :] in hidden else "own"

    return home
