"""Demonstrations for agents: executed, verified, with mistakes that are seen, taken back and not learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Shown, Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.environments.demonstration_files import read_transcripts, write_demonstrations
from regrade.policy_training.environments.demonstration_formats import ChatExpert, CompactExpert
from regrade.policy_training.environments.demonstrations import (
    Demonstration,
    DemonstrationSettings,
    Demonstrator,
    NoDemonstration,
    transcript_of,
)
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.policies.transcripts import Transcript, Turn

LIMITS = EpisodeLimits(turns=12, test_runs=4)


def changed(task: Task, old: str, new: str) -> Patch:
    before = task.base.read("library.py")
    return Patch.between({"library.py": before}, {"library.py": before.replace(old, new)})


def test_the_expert_errs_sees_it_takes_it_back_and_learns_all_but_the_mistake(
    tasks: list[Task], scorer: Scorer
) -> None:
    second, add = tasks
    own_failure = changed(second, "return None", "return 0")
    another_fix = changed(second, "return items[2]", "return items[-2]")  # passes: no mistake that anyone could see
    settings = DemonstrationSettings(with_mistake=2, second_mistake=1.0, look=0.0, with_refusal=0)
    demonstrator = Demonstrator(tasks, scorer, LIMITS, settings, failed={"second": [another_fix, own_failure]})
    made = list(demonstrator.make())
    assert [(each.task_id, each.trace) for each in made] == demonstrator.wanted()
    for each in made:
        assert isinstance(each, Demonstration), each
        assert each.episode.patch == (second if each.task_id == "second" else add).reference
        assert each.episode.tested_before_the_end
        (row,) = each.rows
        turns = transcript_of(row).turns
        learned = [turn.action for turn in turns if turn.is_learned]
        mistakes = [turn.action for turn in turns if not turn.is_learned]
        right = prompt_of(second if each.task_id == "second" else add).answer_of(each.episode.patch)
        assert learned == [*["test", "undo"] * each.mistakes, right, "test", "submit"]
        assert len(mistakes) == each.mistakes == (2 if each.trace else 0)
        assert "4 return items[-2]" not in mistakes
    ones = [
        transcript_of(each.rows[0]) for each in made if isinstance(each, Demonstration) and each.task_id == "second"
    ]
    assert all(Turn("3 return 0", "ok", is_learned=False) in trace.turns for trace in ones[1:])
    for trace in ones[1:]:
        place = trace.turns.index(Turn("3 return 0", "ok", is_learned=False))
        assert trace.turns[place + 1].observation.startswith("2 failed")  # it broke one more


def test_a_trace_keeps_to_the_limits_and_one_turn_is_the_answer_of_today(tasks: list[Task], scorer: Scorer) -> None:
    def lines(**limits: int) -> list[tuple[str, ...]]:
        settings = DemonstrationSettings(with_refusal=0)
        made = Demonstrator(tasks[:1], scorer, EpisodeLimits(**limits), settings).make()
        return [
            tuple(turn.action for turn in transcript_of(each.rows[0]).turns)
            for each in made
            if isinstance(each, Demonstration)
        ]

    answer = prompt_of(tasks[0]).reference_answer()
    assert lines(turns=1) == [(answer,)]
    assert lines(turns=2) == [(answer, "submit")]
    assert lines(turns=5) == [(answer, "test", "submit")]
    assert lines(turns=9, test_runs=0) == [(answer, "submit")]
    (trace,) = Demonstrator(tasks[:1], scorer, EpisodeLimits(turns=1)).make()
    assert isinstance(trace, Demonstration)
    assert transcript_of(trace.rows[0]) == Transcript.of_answer(prompt_of(tasks[0]).text, answer)


def test_some_traces_look_before_they_edit(tasks: list[Task], scorer: Scorer) -> None:
    shares = DemonstrationSettings(look=1.0, with_refusal=0)
    made = [
        *Demonstrator(tasks, scorer, LIMITS, shares).make(),
        *Demonstrator(tasks, scorer, LIMITS, shares, seed=3).make(),
    ]
    assert all(isinstance(each, Demonstration) for each in made)
    first = {transcript_of(each.rows[0]).turns[0].action for each in made if isinstance(each, Demonstration)}
    assert first == {r"find \bsecond\(", r"find \badd\(", "open library.py 5 11", "open library.py 16 22"}


def refusals(
    task: Task, scorer: Scorer, limits: EpisodeLimits, *, look: float = 0.0, form: type[Any] = CompactExpert
) -> list[Demonstration]:
    """Six traces of a task that begin with a refusal."""
    settings = DemonstrationSettings(with_mistake=0, look=look, with_refusal=6)
    _, *made = Demonstrator([task], scorer, limits, settings, form=form).make()
    assert all(isinstance(each, Demonstration) for each in made), made
    return made  # type: ignore[return-value]


VAIN_UNDO = Turn("undo", "error: there is no change to take back", is_learned=False)


@pytest.mark.parametrize(
    ("limits", "is_taken_back", "end"),
    [({"turns": 8}, True, ["test", "submit"]), ({"turns": 4}, False, ["test", "submit"]),
     ({"turns": 8, "test_runs": 0}, True, ["submit"])],
)  # fmt: skip
def test_some_traces_try_an_edit_that_is_refused_and_go_on(
    tasks: list[Task], scorer: Scorer, limits: dict[str, int], is_taken_back: bool, end: list[str]
) -> None:
    """Else a policy that repeats a line has never seen what to do next. A vain undo is left out where it has no room."""
    traces = [transcript_of(each.rows[0]).turns for each in refusals(tasks[0], scorer, EpisodeLimits(**limits))]
    for vain, *others in traces:
        number = vain.action.split(" ")[0]
        assert vain == Turn(vain.action, f"error: line {number} already reads so", is_learned=False)
        learned = others[1:] if others[0] == VAIN_UNDO else others
        assert [turn.action for turn in learned] == ["4 return items[1]", *end]
        assert all(turn.is_learned for turn in learned)
    assert {turns[1] == VAIN_UNDO for turns in traces} == ({True, False} if is_taken_back else {False})
    written = {turns[0].action for turns in traces}
    assert "4 return items[2]" in written, "on the line of the bug"
    assert written & {"1 def second(items):", "2 if len(items) < 2:", "3 return None"}, "on another line"


def test_a_refused_edit_after_a_look_has_the_numbers_of_the_file(tasks: list[Task], scorer: Scorer) -> None:
    looks = [
        (turns[0].action, turns[1].action)
        for each in refusals(tasks[0], scorer, LIMITS, look=1.0)
        for turns in [transcript_of(each.rows[0]).turns]
    ]
    assert ("open library.py 5 11", "8 return items[2]") in looks
    assert {first for first, _ in looks} == {"open library.py 5 11", r"find \bsecond\("}


def test_a_refused_edit_as_a_chat(tasks: list[Task], scorer: Scorer) -> None:
    for turns in (8, 5):
        taken_back = set()
        for each in refusals(tasks[0], scorer, EpisodeLimits(turns=turns), form=ChatExpert):
            reads, vain, *others = each.episode.steps
            assert "the same: nothing was changed" in vain.observation
            taken_back.add(others[0].is_mistake)
            right = others[1:] if others[0].is_mistake else others
            assert [step.tool for step in right] == ["edit", "run_tests", "submit"]
            assert not any(step.is_mistake for step in (reads, *right))
            assert each.learned == tuple(not step.is_mistake for step in each.episode.steps)
        assert taken_back == ({True, False} if turns == 8 else {False})


def test_without_room_for_it_no_trace_begins_with_a_refusal(tasks: list[Task], scorer: Scorer) -> None:
    wanted = [
        len(Demonstrator(tasks[:1], scorer, EpisodeLimits(turns=turns), DemonstrationSettings(with_mistake=0)).wanted())
        for turns in (3, 4)
    ]
    assert wanted == [1, 2]


def test_what_cannot_be_shown_is_left_out_with_its_reason(make_task: Callable[[str], Task], scorer: Scorer) -> None:
    task = make_task("second")
    blind = replace(task, shown=Shown(tests=("test_library.py::test_double",)))
    wrong = replace(task, id="wrong", reference=changed(task, "return items[2]", "return items[0]"))
    longer = replace(task, id="longer", reference=changed(task, "return items[2]", "x = items[1]\n    return x"))
    made = list(Demonstrator([blind, wrong, longer], scorer, LIMITS, DemonstrationSettings(look=0.0)).make())
    reasons = [(each.task_id, each.trace, each.why if isinstance(each, NoDemonstration) else "") for each in made]
    assert reasons == [
        ("second", 0, ""),
        ("second", 1, "no wrong edit was found that the shown tests notice"),
        ("second", 2, ""),
        ("wrong", 0, "the shown tests fail with the reference"),
        ("wrong", 1, "the shown tests fail with the reference"),
        ("wrong", 2, "the shown tests fail with the reference"),
        ("longer", 0, "the format cannot express the reference"),
        ("longer", 1, "the format cannot express the reference"),
        ("longer", 2, "no edit can be expressed that changes nothing"),
    ]
    with pytest.raises(UserError, match="has no reference patch"):
        Demonstrator([task.without_reference()], scorer, LIMITS)
    with pytest.raises(UserError, match="look is 2"):
        DemonstrationSettings(look=2)
    with pytest.raises(UserError, match="with_refusal is -1"):
        DemonstrationSettings(with_refusal=-1)


def test_an_interrupted_file_goes_on_where_it_was_killed(tasks: list[Task], scorer: Scorer, tmp_path: Path) -> None:
    path, whole = tmp_path / "some.jsonl", tmp_path / "all.jsonl"
    demonstrator = Demonstrator(tasks, scorer, LIMITS)
    made = write_demonstrations(demonstrator, whole)
    assert (made.traces, made.with_mistakes, made.left_out) == (6, 2, [])
    first, *others = whole.read_text().splitlines(keepends=True)
    path.write_text(first + others[0][:50])
    seen: list[tuple[int, int]] = []
    again = write_demonstrations(demonstrator, path, lambda *counts: seen.append(counts))
    assert path.read_text() == whole.read_text()
    assert seen == [(done, 6) for done in range(2, 7)]
    assert again.transcripts == made.transcripts == read_transcripts(path)
    with pytest.raises(UserError, match="other settings"):
        write_demonstrations(Demonstrator(tasks, scorer, LIMITS, seed=1), path)
    with pytest.raises(UserError, match="line 1: task 'second' has changed since"):
        write_demonstrations(Demonstrator([replace(tasks[0], failure="?")], scorer, LIMITS), path)
    path.write_text(json.dumps({"prompt": "x"}))
    with pytest.raises(
        UserError, match="line 1: 'task_id' must be a string; the key is missing; this is no demonstration"
    ):
        write_demonstrations(demonstrator, path)
