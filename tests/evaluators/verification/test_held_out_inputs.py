"""Held-out inputs are similar to the calls of tests, and answers are compared as far as a test can observe."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrade.evaluators.inside.remote_calls.packing import Packer
from regrade.evaluators.inside.remote_calls.unpacking import Unpacker
from regrade.evaluators.verification.answer_equality import are_same, find_mismatches, usable_inputs
from regrade.evaluators.verification.held_out_inputs import Call, generate_inputs


class Side:
    """Of a repository without classes, whose functions are never passed by a remote call."""

    name = "tests"

    def is_own_class(self, kind):  # noqa: ARG002
        return False

    def class_names(self, kind):  # noqa: ARG002
        return []

    def received(self, value):
        return value, [], []

    def is_computed(self, value, name):  # noqa: ARG002
        return False

    def may_name(self, module):  # noqa: ARG002
        return False

    def sentinel(self, value):  # noqa: ARG002
        return None

    def reference_of(self, value):  # noqa: ARG002
        return None

    def number(self, value):  # noqa: ARG002
        return 0


def call(*positional, **named) -> Call:
    packer = Packer(Side())
    return ["words", "count#1", packer.pack(positional), packer.pack(named)], packer.nodes


def arguments(made: Call):
    unpacker = Unpacker(Side(), made[1])
    return tuple(unpacker.unpack(each) for each in made[0][2:])


def answer(value, *, known=(None,), raised=False, changes=()):
    """`known`: a value for each node of the call; one without keywords has their empty dict alone."""
    packer = Packer(Side(), list(known))
    packed = packer.pack(value)
    return json.loads(json.dumps({"value": packed, "raised": raised, "nodes": packer.nodes, "changes": list(changes)}))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(-10, 10) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)  # fmt: skip


@given(st.lists(st.tuples(plain, plain), min_size=1, max_size=4))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.nested_given])
def test_new_inputs_are_similar_to_the_calls_and_different(seen):
    calls = [call(one, key=other) for one, other in seen]
    made = generate_inputs(calls, 10)
    assert made == generate_inputs(calls, 10)
    assert len({json.dumps(each) for each in made}) == len(made) <= 10
    assert not {json.dumps(each) for each in made} & {json.dumps(each) for each in calls}
    for each in made:
        positional, named = arguments(each)
        assert len(positional) == 1
        assert named.keys() == {"key"}


def test_the_content_of_arguments_varies():
    made = [arguments(each)[0] for each in generate_inputs([call([1, 2], "a b"), call([3], "")], 40)]
    assert len(made) > 30
    assert {type(numbers) for numbers, _ in made} == {list}
    assert {type(text) for _, text in made} == {str}
    assert len({len(numbers) for numbers, _ in made}) > 2


@given(plain, plain)
@settings(deadline=None)
def test_answers_are_the_same_if_their_values_are(one, other):
    asked = call(0)
    assert are_same(asked, answer(one), answer(one))
    if one != other:
        assert not are_same(asked, answer([one]), answer([other]))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (0.1 + 0.2, 0.3, True), (1, True, False), (1, 1.0, False), ({"b", "a"}, {"a", "b"}, True), ([1], (1,), False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True), (frozenset("ab"), frozenset("ba"), True), ("x", "y", False),
    ],
)  # fmt: skip
def test_single_answers(one, other, alike):
    assert are_same(call(0), answer(one), answer(other)) is alike


def test_an_instance_of_a_subclass_of_float_is_a_float():
    found = answer(0.0)
    found |= {"value": ["node", 0], "nodes": [["float", ["global", "words", "Amount"], 2.5, []]]}
    assert are_same(([], []), answer(2.5, known=()), found)
    assert not are_same(([], []), answer(2.0, known=()), found)


def test_one_object_is_not_equal_to_two():
    twice = [1]
    assert not are_same(call(0), answer([twice, twice]), answer([[1], [1]]))


def test_changes_in_place_count():
    asked = call([1, 2])
    changed = answer(None, known=[0, 0], changes=[[0, ["list", None, [2, 1], None]]])
    assert not are_same(asked, answer(None, known=[0, 0]), changed)
    assert are_same(asked, changed, changed)


@pytest.mark.parametrize(
    "hostile",
    [
        {}, {"gone": "it left"}, {"value": ["node", 7], "raised": False, "nodes": [], "changes": []},
        {"value": ["node", 0], "raised": False, "nodes": [3], "changes": []},
        {"value": ["node", 0], "raised": False, "nodes": [[[], 1, 2, 3]], "changes": [[]]},
        {"value": 1, "raised": False, "nodes": {}, "changes": 3}, {"value": 1, "raised": 0, "nodes": [], "changes": []},
    ],
)  # fmt: skip
def test_a_malformed_answer_is_a_mismatch(hostile):
    asked = call(0)
    (found,) = find_mismatches([asked], [answer(1)], [hostile])
    assert "instead of 1" in str(found)


def test_inputs_with_two_equal_answers_count():
    calls = [call(number) for number in range(3)]
    answers = [answer(0), answer(1, raised=True), {"gone": "it left"}]
    again = [answer(0), answer(1, raised=True), answer(3)]
    assert usable_inputs(calls, answers, again) == [0]


def test_no_input_of_a_random_function_counts():
    """Two shuffles of three items are equal with probability 1/6."""
    shuffled = [call(number) for number in range(2)]
    steady = [([each[0][0], "steady", *each[0][2:]], each[1]) for each in shuffled]
    answers, again = [answer(0), answer(1), answer(2), answer(3)], [answer(0), answer(5), answer(2), answer(3)]
    assert usable_inputs([*shuffled, *steady], answers, again) == [2, 3]


def test_the_comparison_of_a_recursive_answer_ends():
    chain = [["tuple", None, ["tuple", [["node", place + 1]] * 2], None] for place in range(60)]
    hostile = {
        "raised": False,
        "changes": [],
        "nodes": [*chain, ["set", None, [["node", 0]], None]],
        "value": ["node", 60],
    }
    expected = {"raised": False, "changes": [], "nodes": [["set", None, [1], None]], "value": ["node", 0]}
    assert not are_same(([], []), expected, hostile)
    call = ([__name__, "double#1", ["tuple", []], ["node", 0]], [["dict", None, [], None]])
    hostile["nodes"] = [["list", None, [["node", place] for place in range(1, 4)] * 300, None] for _ in range(4)]
    assert "[[[" in str(find_mismatches([call], [expected], [{**hostile, "value": ["node", 1]}])[0])


def test_inputs_do_not_depend_on_the_current_folder_and_leave_no_file_there(tmp_path: Path) -> None:
    """By itself, hypothesis draws constants of the modules that lie there, and stores them."""
    drawn = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "constants.py").write_text(f"NUMBERS = {list(range(number, number + 19))}\nRATIO = {number}.5\n")
        code = (
            f"import json, sys; sys.path.insert(0, {str(folder)!r}); import constants\n"
            "from regrade.evaluators.verification.held_out_inputs import generate_inputs\n"
            "calls = [(['m', 'f', ['tuple', [1, 2.5, 'a']], ['tuple', []]], [])]\n"
            "print(json.dumps(generate_inputs(calls, 200)))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
        drawn.append(done.stdout)
        assert {path.name for path in folder.iterdir()} <= {"__pycache__", "constants.py"}
    assert drawn[0] == drawn[1]
    assert len(json.loads(drawn[0])) > 20
