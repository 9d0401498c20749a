"""Values that cross between two processes as plain data arrive unchanged, and nothing else crosses."""

from __future__ import annotations

import asyncio
import bdb
import collections
import datetime
import decimal
import doctest
import functools
import importlib
import json
import math
import operator
import re
import socket
import threading
import unittest
from unittest import mock

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrade.evaluators.inside.remote_calls.messages import send
from regrade.evaluators.inside.remote_calls.peer import Peer
from regrade.evaluators.inside.remote_calls.plain_values import UncrossableError


class Connection:
    """Both sides in one process, each with a thread: `candidate` performs the requests of `tests`."""

    def __init__(self, perform):
        one, other = socket.socketpair()
        origin_of = lambda name: "own" if name == __name__ else "elsewhere"  # noqa: E731
        self.tests, self.candidate = Peer("tests", one, origin_of), Peer("candidate", other, origin_of)
        self.candidate.perform = lambda operation, arguments: (
            perform(*arguments) if operation == "try" else self.candidate._perform(operation, arguments)
        )
        self._sockets = (one, other)
        self._thread = threading.Thread(target=self.candidate.serve, daemon=True)
        self._thread.start()

    def request(self, *arguments):
        return self.tests.request("try", *arguments)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in self._sockets:
            end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._thread.join()


@pytest.fixture(scope="module")
def echo():
    with Connection(lambda value: value) as connection:
        yield connection


class Box:
    def __init__(self, value):
        self.value = value

    def is_full(self):
        return self.value is not None

    def __eq__(self, other):
        return type(other) is Box and other.value == self.value

    __hash__ = None


class Skipping(unittest.SkipTest):
    """An error of the repository that test tools take for a skip."""


class Slotted:
    __slots__ = ("first", "second")

    def __init__(self, first):
        self.first = first

    def __eq__(self, other):
        return type(other) is Slotted and other.first == self.first and not hasattr(other, "second")

    __hash__ = None


class Registry(dict):
    """A subclass of a builtin, with state of its own."""


class Point(collections.namedtuple("Point", "x y")):
    __slots__ = ()


class Refused(ValueError):
    pass


SENTINEL = object()
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.decimals(allow_nan=False),
    st.fractions(), st.dates(), st.datetimes(), st.timedeltas(), st.uuids(), st.complex_numbers(allow_nan=False),
)  # fmt: skip
hashable = st.one_of(scalars, st.tuples(scalars, scalars), st.frozensets(st.integers()))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(hashable, inner), st.tuples(inner, inner), st.sets(hashable), inner.map(Box),
        inner.map(Slotted), st.lists(inner).map(collections.deque), st.builds(Point, inner, inner),
        st.dictionaries(st.text(), inner).map(Registry), st.dictionaries(st.text(), inner).map(collections.OrderedDict),
    ),
    max_leaves=20,
)  # fmt: skip


@given(values)
@settings(deadline=None)
def test_values_return_unchanged(echo, value):
    back = echo.request(value)
    assert back == value
    assert type(back) is type(value)


def rebuilt(value):
    """A copy, so that the other side does not return the received object."""
    if type(value) is list:
        return [rebuilt(item) for item in value]
    if type(value) is dict:
        return {key: rebuilt(item) for key, item in value.items()}
    if type(value) is Box:
        return Box(rebuilt(value.value))
    return value


@given(values)
@settings(deadline=None)
def test_values_of_the_other_side_arrive(value):
    with Connection(rebuilt) as connection:
        assert connection.request(value) == value


@pytest.mark.parametrize(
    "value",
    [
        math.inf, -math.inf, range(3, 9, 2), slice(1, None), ..., NotImplemented, b"\xff", "\ud800", 1 << 4000,
        re.compile("a(b)", re.I), datetime.UTC, decimal.Decimal("NaN").is_nan(), operator.itemgetter(1)((1, 2)),
        collections.Counter("aab"), int, len, math.sqrt, functools.reduce, SENTINEL, Box, bytearray(b"ab"),
    ],
)  # fmt: skip
def test_single_values(echo, value):
    back = echo.request(value)
    assert back == value
    assert type(back) is type(value)


def test_nan_stays_nan(echo):
    assert math.isnan(echo.request(math.nan))


def test_a_match_has_its_groups(echo):
    assert echo.request(re.search("a(b)", "xxab")).group(1) == "b"


def test_identity_and_cycles_survive(echo):
    inner = []
    outer = [inner, inner, Box(inner)]
    outer.append(outer)
    assert echo.request(outer) is outer  # what comes back unchanged is what was sent
    with Connection(lambda: outer) as connection:
        answer = connection.request()
    assert answer[0] is answer[1] is answer[2].value
    assert answer[3] is answer


def test_changes_in_place_arrive():
    def change(numbers, box, named):
        numbers.append(3)
        box.value = numbers
        del box.other
        named.clear()
        named["new"] = {1}

    numbers, box, named = [1], Box(0), {"old": 1}
    box.other = 1
    with Connection(change) as connection:
        connection.request(numbers, box, named)
    assert numbers == [1, 3]
    assert box.value is numbers
    assert not hasattr(box, "other")
    assert named == {"new": {1}}


def test_functions_call_back_and_forth():
    with Connection(lambda function, values: [function(value) for value in values]) as connection:
        assert connection.request(lambda x: x + 1, [1, 2]) == [2, 3]
    with Connection(lambda start: lambda x: start + x) as connection:
        assert connection.request(2)(3) == 5


def test_iterators_are_lazy():
    taken = []

    def endless():
        number = 0
        while True:
            taken.append(number)
            yield number
            number += 1

    with Connection(lambda values: (value * 2 for value in values)) as connection:
        doubled = connection.request(endless())
        assert [next(doubled), next(doubled)] == [0, 2]
    assert taken == [0, 1]


def test_errors_keep_class_arguments_and_identity():
    def refuse(error):
        raise error

    with Connection(refuse) as connection:
        error = Refused("no", 3)
        with pytest.raises(Refused) as caught:
            connection.request(error)
        assert caught.value is error
    with Connection(lambda: int("x")) as connection, pytest.raises(ValueError, match="invalid literal"):
        connection.request()


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), SystemExit(2), json.JSONDecodeError("no", "doc", 0), decimal.InvalidOperation(), TimeoutError("x")],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_python_and_its_library_arrive_as_they_are(error):
    def fail():
        raise error

    with Connection(fail) as connection, pytest.raises(type(error)) as caught:
        connection.request()
    assert caught.value.args == error.args


def test_a_stop_of_an_iteration_that_the_tests_advance_arrives():
    class Numbers:
        def __next__(self):
            raise StopIteration(7)

    with Connection(lambda: None) as connection:
        connection.candidate.perform = lambda *_: Numbers().__next__()
        with pytest.raises(StopIteration) as caught:
            connection.tests.request("function", "module", "Numbers.__next__#1", (), {})
        assert caught.value.value == 7
        with pytest.raises(UncrossableError, match="ends a loop of the tests"):
            connection.tests.request("function", "module", "first#1", (), {})


@pytest.mark.parametrize(
    ("error", "is_failure"),
    [(AssertionError("no"), True), (pytest.fail.Exception("no"), True), (KeyError("no"), False)],
)
def test_a_context_manager_of_the_candidate_suppresses_no_failure_of_a_test(error, is_failure):
    def suppressing():
        try:
            yield 1
        except BaseException:
            return

    with Connection(suppressing) as connection:
        values = connection.request()
        assert next(values) == 1
        with pytest.raises(UncrossableError if is_failure else StopIteration):
            values.throw(error)
    with Connection(lambda: None) as connection:
        connection.candidate.perform = lambda *_: True
        ends = ("function", "module", "Timer.__exit__#1", (None, type(error), error, None), {})
        if is_failure:
            with pytest.raises(UncrossableError):
                connection.tests.request(*ends)
        else:
            assert connection.tests.request(*ends) is True


def test_an_object_of_the_tests_is_used_through_its_operators():
    class Local:
        """A local class: the other side can't have it."""

        def __init__(self):
            self.items = [1, 2]

        def __len__(self):
            return 7

        def __eq__(self, other):
            return other == 5

        __hash__ = object.__hash__

    def use(thing):
        return len(thing), thing == 5, thing.items, callable(thing), thing

    local = Local()
    with Connection(use) as connection:
        length, equal, items, is_callable, back = connection.request(local)
    assert (length, equal, items, is_callable) == (7, True, [1, 2], False)
    assert back is local


def test_an_instance_of_an_unknown_class_arrives_as_its_builtin_base():
    class Amount(float):
        def __eq__(self, other):
            return True

        __hash__ = float.__hash__

    class Words(dict):
        pass

    with Connection(lambda: [Amount(2.5), Words(a=1)]) as connection:
        amount, words = connection.request()
    assert (type(amount), amount) == (float, 2.5)
    assert (type(words), words) == (dict, {"a": 1})


class TestWhatACandidateMayNot:
    def test_send_an_object_that_equals_everything(self):
        class Equal:
            def __eq__(self, other):
                return True

            __hash__ = None

        with Connection(lambda: Equal()) as connection, pytest.raises(UncrossableError, match="an object of"):
            connection.request()

    @pytest.mark.parametrize("name", [("unittest.mock", "ANY"), ("os", "_exit"), ("_pytest.outcomes", "Skipped")])
    def test_name_a_global_outside_the_repository(self, name):
        with Connection(lambda: None) as connection:
            connection.candidate.perform = lambda *_: Named(*name)
            with pytest.raises(UncrossableError, match="may not be named"):
                connection.request()

    @pytest.mark.parametrize(
        "error",
        [
            unittest.SkipTest("x"),
            pytest.skip.Exception("x"),
            pytest.xfail.Exception("x"),
            pytest.exit.Exception("x"),
            hypothesis.errors.UnsatisfiedAssumption("x"),
            hypothesis.errors.StopTest(1),
            doctest.UnexpectedException(None, None, None),
            bdb.BdbQuit("x"),
            GeneratorExit("x"),
            KeyboardInterrupt("x"),
            asyncio.CancelledError("x"),
            Skipping("x"),
            importlib.import_module("jinja2").TemplateError("x"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_raise_an_error_that_is_no_failure(self, error):
        def fail():
            raise error

        with Connection(fail) as connection, pytest.raises(Exception) as caught:
            connection.request()
        assert type(caught.value) in (Exception, RuntimeError)

    @pytest.mark.parametrize("error", [StopIteration("x"), StopAsyncIteration("x")], ids=["sync", "async"])
    def test_end_a_loop_of_the_tests(self, error):
        def fail(_):
            raise error

        with Connection(fail) as connection, pytest.raises(UncrossableError, match="ends a loop"):
            list(zip(map(connection.request, [1, 2]), [3, 4], strict=False))

    @pytest.mark.parametrize("attribute", ["__globals__", "__class__", "__dict__", "__code__"])
    def test_inspect_a_received_function(self, attribute):
        def look(function):
            return function._regrade_peer.request("attribute", function, attribute)

        with Connection(look) as connection, pytest.raises(UncrossableError):
            connection.request(lambda: SENTINEL)

    @pytest.mark.parametrize(
        "answer",
        [
            {}, [], 3, {"value": 1}, {"value": ["node", 9], "raised": False, "nodes": [], "changes": []},
            {"value": ["tuple"], "raised": False, "nodes": [], "changes": []},
            {"value": 1, "raised": False, "nodes": [], "changes": [[-1, ["list", None, [], None]]]},
            {"value": 1, "raised": False, "nodes": [], "changes": [[0, ["dict", None, [], None]]]},
            {"value": 1, "raised": True, "nodes": [], "changes": []},
            {"value": ["number", "candidate", 0, "opaque", []], "raised": False, "nodes": [], "changes": []},
            {"value": ["number", "tests", 99, "callable", {}], "raised": False, "nodes": [], "changes": []},
            {"value": ["value", "os.system", ["true"]], "raised": False, "nodes": [], "changes": []},
            {"value": ["global", "builtins", "exec"], "raised": False, "nodes": [], "changes": []},
            {"value": ["global", "builtins", "type"], "raised": False, "nodes": [], "changes": []},
            {"value": ["global", __name__, "mock.ANY"], "raised": False, "nodes": [], "changes": []},
            {"value": ["global", __name__, "mock._ANY"], "raised": False, "nodes": [], "changes": []},
            {"value": ["global", __name__, "rebuilt.__globals__"], "raised": False, "nodes": [], "changes": []},
            {"value": ["global", __name__, "rebuilt"], "raised": False, "nodes": [], "changes": []},
            {"value": ["partial", ["global", "builtins", "int"], ["tuple", []], ["tuple", []]], "raised": False, "nodes": [], "changes": []},
            {"value": ["nonsense"], "raised": False, "nodes": [], "changes": []},
            {"value": ["node", 1], "raised": False, "nodes": [["object", ["global", "builtins", "int"], None, []]], "changes": []},
            {"ask": "attribute", "arguments": [["number", "tests", 0, "opaque", []], "__class__"], "nodes": []},
        ],
    )  # fmt: skip
    def test_send_a_malformed_answer(self, answer):
        one, other = socket.socketpair()
        tests = Peer("tests", one, lambda name: "own" if name == __name__ else "elsewhere")
        send(other, answer)
        other.shutdown(socket.SHUT_WR)
        with pytest.raises(UncrossableError):
            tests.request("try", [1])
        one.close()
        other.close()

    def test_send_an_integer_that_json_refuses(self, echo):
        with pytest.raises(UncrossableError, match="digits"):
            echo.request(1 << 100_000)

    def test_write_to_a_received_object(self):
        class Case:
            def check(self, condition):
                assert condition

        def tamper(case):
            case.check = print

        case = Case()
        with Connection(tamper) as connection, pytest.raises(UncrossableError, match="operation 'set' is not allowed"):
            connection.request(case)
        assert vars(case) == {}

    @pytest.mark.parametrize("attribute", ["gi_frame", "gi_code"])
    def test_read_the_frames_of_the_tests(self, attribute):
        with Connection(lambda numbers: getattr(numbers, attribute)) as connection, pytest.raises(UncrossableError):
            connection.request(number for number in [1])

    @pytest.mark.parametrize("name", ["assert_called_once_with", "configure_mock", "method_calls", "return_value"])
    def test_configure_a_mock(self, name):
        def tamper(callback):
            value = getattr(callback, name)
            value.append(1)

        callback = mock.Mock()
        callback.method(3)
        with Connection(tamper) as connection, pytest.raises(UncrossableError):
            connection.request(callback)
        assert callback.method_calls == [mock.call.method(3)]

    def test_use_a_mock_in_other_ways(self):
        def use(callback):
            callback(3)
            return callback.read(), callback.name

        callback = mock.Mock()
        callback.read.return_value = "text"
        callback.name = "its name"
        with Connection(use) as connection:
            assert connection.request(callback) == ("text", "its name")
        callback.assert_called_once_with(3)

    def test_call_a_builtin_in_the_process_of_the_tests(self):
        def call(function, other):
            return other._regrade_peer.request("call", function, ([1, 2],), {})

        with Connection(call) as connection, pytest.raises(UncrossableError, match="not passed"):
            connection.request(len, lambda: None)

    def test_return_an_object_with_a_replaced_method(self):
        def answer():
            box = Box(1)
            box.is_full = lambda: True
            return box

        with Connection(answer) as connection, pytest.raises(UncrossableError, match="in place of a method"):
            connection.request()

    def test_replace_a_method_of_a_received_object(self):
        class Special(Box):
            """A local class, so that its attributes are requested."""

        def tamper(box):
            box.value = 2
            box.is_full = lambda: True

        box = Special(None)
        with Connection(tamper) as connection, pytest.raises(UncrossableError, match="operation 'set' is not allowed"):
            connection.request(box)
        assert vars(box) == {"value": 2}

    def test_run_its_functions_in_the_process_of_the_tests(self):
        ran_in = []

        def give():
            return functools.partial(ran_in.append, threading.get_ident())

        with Connection(give) as connection:
            assert "Remote" in type(connection.request()).__name__


class Named:
    """Packs as a global of any name."""

    def __init__(self, module, name):
        self.module, self.name = module, name


@pytest.fixture(autouse=True)
def naming(monkeypatch):
    """`Named` values pack as the global that they name, as a hostile process would write it."""
    from regrade.evaluators.inside.remote_calls.packing import Packer

    pack = Packer.pack
    monkeypatch.setattr(
        Packer,
        "pack",
        lambda self, value: ["global", value.module, value.name] if type(value) is Named else pack(self, value),
    )
