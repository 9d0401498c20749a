"""Hidden tests made of the reference's answers: it passes them, and patches that got through do not.

A test is one call by literals and the answer, or the class of the error that the reference raises on purpose. Floats
are compared as nearly as two right sums differ. Execution decides which tests are kept (`hardening.py`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Shown, Task
from regrade.evaluators.hardening.literals import NoLiteralError, has_float, literal
from regrade.evaluators.hardening.reference_behaviour import RawAnswer, ReferenceBehaviour, error_name
from regrade.evaluators.verification.held_out_inputs import Call

NAME = "test_regrade_hidden_answers.py"
TOLERANCE = 1e-9
HEAD = '"""Answers of the reference patch to inputs that no other test contains."""\n\n'


@dataclass(frozen=True)
class GeneratedTests:
    """Hidden tests of a task, in one file."""

    file: str
    text: str
    fail_to_pass: tuple[str, ...]
    """Ids of the tests that fail at the base."""
    pass_to_pass: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        return (*self.fail_to_pass, *self.pass_to_pass)

    def only(self, kept: Collection[str], bodies: Mapping[str, str]) -> GeneratedTests:
        """Those with these ids. `bodies`: id -> source, of all."""
        return replace(
            self,
            text=_text([bodies[test] for test in self.ids if test in kept]),
            fail_to_pass=tuple(test for test in self.fail_to_pass if test in kept),
            pass_to_pass=tuple(test for test in self.pass_to_pass if test in kept),
        )

    def added_to(self, task: Task) -> Task:
        """The task with the tests, which no agent is shown."""
        shown = task.shown
        if shown.tests is None:
            shown = replace(shown, tests=tuple(sorted({file_of(test) for test in task.tests})))
        suite = task.suite
        reach = suite.reach and {key: (*tests, *self.pass_to_pass) for key, tests in suite.reach.items()}
        return replace(
            task,
            base=task.base.with_files({self.file: self.text}),
            fail_to_pass=(*task.fail_to_pass, *self.fail_to_pass),
            pass_to_pass=(*task.pass_to_pass, *self.pass_to_pass),
            shown=Shown(tests=shown.tests, names_failing_tests=shown.names_failing_tests),
            suite=replace(suite, reach=reach, paths=self._paths(suite.paths), test_files=self._files(task)),
        )

    def alone(self, task: Task) -> Task:
        """A task of these tests and no other, all of which must pass."""
        suite = replace(
            task.suite, paths=(self.file,), reach=None, companions={}, seconds=None, test_files=self._files(task)
        )
        return replace(
            task,
            base=task.base.with_files({self.file: self.text}),
            fail_to_pass=(),
            pass_to_pass=self.ids,
            unnamed=(),
            suite=suite,
            assurance="",
            is_unmeasured=False,
        )

    def _paths(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        folders = [f"{path.rstrip('/')}/" for path in paths]
        is_collected = not paths or any(path in (".", "") for path in paths) or any(map(self.file.startswith, folders))
        return paths if is_collected else (*paths, self.file)

    def _files(self, task: Task) -> tuple[str, ...]:
        return tuple(sorted({*task.suite.test_files, self.file}))


def generate_tests(
    task: Task, behaviour: ReferenceBehaviour, indices: Sequence[int]
) -> tuple[GeneratedTests, dict[str, str]] | None:
    """Tests of held-out inputs, all as PASS_TO_PASS until a run shows which fail at the base, and id -> source.

    None: none of the inputs and answers can be written as literals.
    """
    sources: list[str] = []
    for index in indices:
        source = _source(behaviour.inputs[index], behaviour.expected[index], len(sources) + 1)
        if source is not None:
            sources.append(source)
    if not sources:
        return None
    file = _new_file(task)
    bodies = {f"{file}::test_answer_{number}": source for number, source in enumerate(sources, start=1)}
    return GeneratedTests(file, _text(sources), (), tuple(bodies)), bodies


def is_writable(call: Call, answer: RawAnswer) -> bool:
    """Can a test be made of it?"""
    return _source(call, answer, 0) is not None


def _new_file(task: Task) -> str:
    folder = posixpath.dirname(file_of((*task.fail_to_pass, *task.pass_to_pass)[0]))
    names = (NAME, *(f"{NAME.removesuffix('.py')}_{number}.py" for number in range(2, 1000)))
    paths = [posixpath.join(folder, name) for name in names]
    return next(path for path in paths if task.base.read_or_none(path) is None)


def _text(sources: Sequence[str]) -> str:
    modules = sorted({source.split("\n", 1)[0] for source in sources})
    bodies = [source.split("\n", 1)[1] for source in sources]
    return HEAD + "\n".join(["import pytest", *modules]) + "\n\n\n" + "\n\n\n".join(bodies) + "\n"


def _source(call: Call, answer: RawAnswer, number: int) -> str | None:
    """A line that imports the module, and a test function; None: not by literals."""
    ((module, key, positional, keywords), nodes) = call
    name = key.partition("#")[0]
    if "<locals>" in name or "values" in answer or answer.get("changes"):
        return None
    try:
        arguments = [literal(part, nodes) for part in positional[1]]
        options = literal(keywords, nodes)
        called = f"{module}.{name}({', '.join([*arguments, *([f'**{options}'] if options != '{}' else [])])})"
        return f"import {module}\ndef test_answer_{number}():\n{_body(called, answer, nodes)}"
    except NoLiteralError:
        return None


def _body(called: str, answer: RawAnswer, sent: Sequence[object]) -> str:
    if answer.get("raised") is True:
        name = error_name(answer)
        if name is None or name[0] != "builtins":
            raise NoLiteralError("the class of the error is no builtin one")
        return f"    with pytest.raises({name[1]}):\n        {called}"
    nodes = [*sent, *answer["nodes"]]
    value = literal(answer["value"], nodes)
    if isinstance(answer["value"], float):
        return f"    assert {called} == pytest.approx({value}, rel={TOLERANCE}, abs={TOLERANCE})"
    if has_float(answer["value"], nodes):
        raise NoLiteralError("a float inside of a container")
    return f"    assert {called} == {value}"
