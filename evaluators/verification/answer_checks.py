"""Do a patch's answers to the tests count? Tests alone accept answers that are not: a pair of functions of which one
remembers what the other returns, and an instance that equals almost everything.

- Each call by plain values is repeated in another process, in reverse order. Its answer must be the same, unless the
  reference's depends on earlier calls as well. Instances lack the attributes that those of the reference never have.
- An equality or an assertion that the reference changes must judge as the reference's does.
- An instance of a repository class in an answer may not equal two values that are unequal to each other, unless a part
  of the reference's answer does so too (`inside/remote_calls/likeness.py`).

Without a reference, the base shows what an answer may do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from regrade.datasets.tasks import Task
from regrade.evaluators.execution.worker import UNPREPARED, Preparation
from regrade.evaluators.execution.workspaces import Workspace
from regrade.evaluators.verification.answer_equality import are_same, find_mismatches, function_of
from regrade.evaluators.verification.boundaries import Boundary, boundary_for_calls, is_oracle
from regrade.evaluators.verification.held_out_inputs import Call
from regrade.evaluators.verification.two_process import TwoProcessRun, WorkerPair

Answered = tuple[Call, Any]
Attribute = tuple[str, str]
"""A class and the name."""
DEPENDS = "its answer depends on other calls"
REPEATED_SECONDS = 20.0
"""Time limit of a repeated call: it was answered before within that of the tests."""
MOST_OTHERS, MOST_EXAMINED = 40, 100
NUMBER, OF_CANDIDATE, GLOBAL = '["number", ', '["number", "candidate"', '["global", '


@dataclass(frozen=True)
class AnswerTraits:
    """What the answers of trusted code do: a patch's may do the same. Names of functions."""

    stateful: tuple[str, ...] = ()
    """Their answers depend on earlier calls, or on chance."""
    taking_objects: tuple[str, ...] = ()
    """They receive functions or iterators that others of them returned."""
    permissive: tuple[str, ...] = ()
    """They return instances that equal other values."""
    attributes: tuple[tuple[str, str], ...] = ()
    """(class, attribute) of the instances in calls and answers."""


def answer_traits(
    pair: WorkerPair,
    task: Task,
    workspace: Workspace,
    boundary: Boundary,
    split: TwoProcessRun,
    preparation: Preparation = UNPREPARED,
) -> AnswerTraits:
    """The traits of answers that the workspace's functions gave to the tests.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    examined = [(call, answer, None) for call, answer in split.answered if _has_instances(answer)]
    problems = _problems(pair, task, workspace, examined[:MOST_EXAMINED], split.answered, preparation)
    return AnswerTraits(
        tuple(sorted(_remembered(pair, task, workspace, boundary, split.answered, preparation))),
        tuple(sorted(_taking_objects(split.answered))),
        tuple(
            sorted({function_of(call) for (call, _, _), problem in zip(examined, problems, strict=False) if problem})
        ),
        tuple(
            sorted({pair for call, answer in split.answered for pair in _attributes([*call[1], *_nodes_of(answer)])})
        ),
    )


def doubts(
    pair: WorkerPair,
    task: Task,
    workspace: Workspace,
    trusted: Workspace,
    boundary: Boundary,
    split: TwoProcessRun,
    traits: AnswerTraits,
    preparation: Preparation = UNPREPARED,
) -> list[str]:
    """Reasons why the answers of a patch's functions to the tests do not count.

    Args:
        trusted: with the reference, or, without one, the base.
        traits: of the trusted workspace's answers.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    try:
        return _doubts(pair, task, workspace, trusted, boundary, split, traits, preparation)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
        return ["its answers are malformed"]  # a candidate's process can answer anything


def _doubts(
    pair: WorkerPair,
    task: Task,
    workspace: Workspace,
    trusted: Workspace,
    boundary: Boundary,
    split: TwoProcessRun,
    traits: AnswerTraits,
    preparation: Preparation,
) -> list[str]:
    found = [
        f"{name} receives a function or an iterator that the patch made"
        for name in sorted(_taking_objects(split.answered) - set(traits.taking_objects))
    ]
    repeated = [each for each in split.answered if function_of(each[0]) not in traits.stateful]
    found = _too_equal(pair, task, trusted, boundary, split.answered, traits, preparation) + found
    found = _false_judgements(pair, task, trusted, boundary, split.answered, preparation) + found
    if task.reference is not None:
        initial = _initial_attributes(split.answered)
        # A fix may make an attribute of what is a property of the reference.
        functions = {
            key.partition("#")[0].rpartition(".")[2]
            for file in boundary.files.values()
            for key in (*file.changed, *file.added)
        }
        used = {each for call, answer in split.answered for each in _attributes([*call[1], *_nodes_of(answer)])}
        known = frozenset((*traits.attributes, *(each for each in used if each[1] in functions)))
        repeated = [_with_known_attributes(each, known, initial) for each in repeated]
    return found + list(_remembered(pair, task, workspace, boundary, repeated, preparation).values())


def is_by_number(answered: Answered) -> bool:
    """Does a function, an iterator or an object of a test cross in the call or its answer?"""
    return NUMBER in json.dumps(answered)


def repeatable_calls(answered: Iterable[Answered], most: int) -> list[Call]:
    """The first calls of each function by plain values, each once."""
    calls: dict[str, dict[str, Call]] = {}
    for call, _ in answered:
        text = json.dumps(call)
        of_function = calls.setdefault(function_of(call), {})
        if NUMBER not in text and len(of_function) < most:
            of_function.setdefault(text, call)
    return [call for of_function in calls.values() for call in of_function.values()]


def _taking_objects(answered: Iterable[Answered]) -> set[str]:
    return {function_of(call) for call, _ in answered if OF_CANDIDATE in json.dumps(call)}


def _remembered(
    pair: WorkerPair,
    task: Task,
    workspace: Workspace,
    boundary: Boundary,
    answered: Sequence[Answered],
    preparation: Preparation,
) -> dict[str, str]:
    """Function -> evidence that its answers depend on the calls before them."""
    calls = [(call, answer) for call, answer in answered[::-1] if not is_by_number((call, answer))]
    calls = [(call, answer) for call, answer in calls if "value" in answer]
    if not calls:
        return {}
    inputs = [call for call, _ in calls]
    answers = pair.answers(task, workspace, boundary, inputs, preparation, REPEATED_SECONDS)
    found: dict[str, str] = {}
    for number, (call, answer) in enumerate(calls):
        again = answers[number] if number < len(answers) else {"gone": "no answer"}
        if answer["changes"] is not None:
            mismatches = find_mismatches([call], [answer], [again])
        else:
            whole = {**again, "changes": [], "nodes": [*call[1], *again.get("nodes", ())]}
            is_same = are_same((call[0], []), {**answer, "changes": []}, whole)
            mismatches = [] if is_same else find_mismatches([call], [{"gone": "the same"}], [again])
        found |= {each.function: f"{DEPENDS}: when repeated, {each}" for each in mismatches}
    return found


def _nodes_of(answer: Any) -> list[Any]:
    """The nodes of an answer, and the new contents of those of the call."""
    nodes, changed = answer.get("nodes"), answer.get("changes")
    if not isinstance(nodes, list) or not isinstance(changed, list):
        return []
    return [*nodes, *(content for _, content in changed)]


def _attributes(nodes: Iterable[Any]) -> Iterator[Attribute]:
    """The attributes of the instances among the nodes, in order."""
    for _, own, _, state in nodes:
        if own is not None:
            yield from ((".".join(map(str, own[-1][1:])), str(name)) for name, _ in state or ())


def _initial_attributes(answered: Iterable[Answered]) -> dict[Attribute, Any]:
    """Attribute -> what `__init__` sets it to: a plain value, or the node of an empty container."""
    initial = {}
    for (arguments, sent), answer in answered:
        if arguments[1].partition("#")[0].endswith("__init__") and _nodes_of(answer):
            nodes = [*sent, *answer["nodes"]]
            states = [value for node in _nodes_of(answer) if node[1] is not None for _, value in node[3] or ()]
            for attribute, value in zip(_attributes(_nodes_of(answer)), states, strict=True):
                is_node = isinstance(value, list) and value[0] == "node"
                content = nodes[value[1]] if is_node else value
                if not isinstance(value, list) or (is_node and content[1:] == [None, [], None]):
                    initial[attribute] = content
    return initial


def _with_known_attributes(one: Answered, known: frozenset[Attribute], initial: Mapping[Attribute, Any]) -> Answered:
    """The call with instances that have no other attributes, and what its answer must then be.

    In another attribute a function could remember what the next one should compute. What `__init__` sets, such as an
    empty cache, stays so.
    """
    (arguments, nodes), answer = one
    if "value" not in answer or known.issuperset(_attributes(nodes)):
        return one
    kept = [list(node) for node in nodes]
    for node in kept:
        if node[1] is None:
            continue
        state = []
        for attribute, (name, value) in zip(_attributes([node]), node[3] or (), strict=True):
            first = initial.get(attribute)
            if attribute in known:
                state.append([name, value])
            elif isinstance(first, list) and isinstance(value, list) and value[0] == "node":
                kept[value[1]] = first
                state.append([name, value])
            elif attribute in initial and not isinstance(first, list):
                state.append([name, first])
        node[3] = state
    # Neither whether it changes the missing attributes again matters, nor whether it answers with a part of them.
    return (arguments, kept), {**answer, "changes": None, "nodes": [*nodes, *answer["nodes"]]}


def _too_equal(
    pair: WorkerPair,
    task: Task,
    trusted: Workspace,
    boundary: Boundary,
    answered: Sequence[Answered],
    traits: AnswerTraits,
    preparation: Preparation,
) -> list[str]:
    """Evidence that instances in answers equal more than what the trusted workspace's functions return."""
    with_instances = [(call, answer) for call, answer in answered if _has_instances(answer)]
    if not with_instances:
        return []
    plain = [call for call, _ in answered if NUMBER not in json.dumps(call)]
    answers = dict(
        zip(
            map(json.dumps, plain),
            pair.answers(task, trusted, boundary_for_calls(trusted, boundary), plain, preparation),
            strict=False,
        )
    )
    examined, found = [], []
    for call, answer in with_instances:
        right = answers.get(json.dumps(call), {})
        is_known = right.get("raised") is False
        is_same = are_same(call, right, answer) and are_same(call, answer, right)  # with no more attributes either
        if is_same or (not is_known and function_of(call) in traits.permissive):
            continue
        examined.append((call, answer, right if is_known else None))
        if is_known and _functions_in(answer) and not _functions_in(right):
            found.append(
                f"{function_of(call)}: an instance with a function of the patch, which may decide what it equals"
            )
    others = [(call, answers[text]) for call in plain if (text := json.dumps(call)) in answers]
    problems = _problems(pair, task, trusted, examined[:MOST_EXAMINED], others, preparation)
    problems += ["it was not examined"] * (len(examined) - len(problems))
    return found + [
        f"{function_of(call)}: {problem}" for (call, _, _), problem in zip(examined, problems, strict=True) if problem
    ]


def _false_judgements(
    pair: WorkerPair,
    task: Task,
    trusted: Workspace,
    boundary: Boundary,
    answered: Sequence[Answered],
    preparation: Preparation,
) -> list[str]:
    """Evidence that equalities and assertions of the patch hold where those of the trusted workspace do not."""
    if task.reference is None:  # those of the patch were not asked
        return []
    judged = [(call, answer) for call, answer in answered if is_oracle(call[0][1]) and NUMBER not in json.dumps(call)]
    if not judged:
        return []
    calls = [call for call, _ in judged]
    answers = pair.answers(task, trusted, boundary_for_calls(trusted, boundary), calls, preparation)
    answers += [{"gone": "no answer"}] * (len(calls) - len(answers))
    return [
        f"{function_of(call)} judges otherwise than the reference's"
        for call, answer, right in zip(calls, (answer for _, answer in judged), answers, strict=True)
        if _holds(answer) != _holds(right)
    ]


def _holds(answer: Any) -> bool:
    """Does a judgement hold? An assertion returns; an equality returns something true."""
    if answer.get("raised") is not False:
        return False
    value = answer["value"]
    return value is None or value is True or (value is not False and value != ["constant", "not implemented"])


def _problems(
    pair: WorkerPair,
    task: Task,
    trusted: Workspace,
    examined: Sequence[tuple[Call, Any, Any]],
    others: Sequence[Answered],
    preparation: Preparation,
) -> list[str]:
    """The problem of each answer, with the answer of trusted code; `others`: of trusted code, to other calls."""
    if not examined:
        return []
    random = Random(f"{task.digest} {json.dumps(examined)}")  # a patch can't foresee it
    answered = [(call[1], answer) for call, answer in others if answer.get("raised") is False]
    chance = [random.uniform(-1.0, 1.0) * 10 ** random.randint(0, 6) for _ in range(4)]
    chance += [random.randint(3, 10**digits) for digits in (2, 4, 9)]
    chance += ["".join(random.choices("abcdefghij", k=size)) for size in (1, 4, 9)]
    crossing = {
        "answers": [(call[1], answer, expected) for call, answer, expected in examined],
        "others": random.sample(answered, min(len(answered), MOST_OTHERS)),
        "chance": chance,
    }
    return pair.likeness(task, trusted.after, crossing, preparation)


def _functions_in(answer: Any) -> int:
    """Functions and other globals in an answer, besides the classes of its instances."""
    text = json.dumps([answer["value"], answer["nodes"]])
    return text.count(NUMBER) + text.count(GLOBAL) - sum(len(node[1] or ()) for node in answer["nodes"])


def _has_instances(answer: Any) -> bool:
    """Does an answer have instances of repository classes, or globals that may be one?"""
    try:
        is_instance = any(node[1] is not None for node in answer["nodes"])
        has_globals = answer["raised"] is False and GLOBAL in json.dumps([answer["value"], answer["nodes"]])
    except (TypeError, LookupError):
        return False  # it is no answer
    return is_instance or has_globals
