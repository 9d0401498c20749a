"""The short answer format: what the prompt shows, and the way from an answer back to a patch."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Target, Task
from regrade.policy_training.policies.single_turn_prompt import prompt_of

MakeTask = Callable[[str], Task]


def test_prompt_numbers_the_dedented_lines_without_docstring_and_blank_lines(make_task: MakeTask) -> None:
    prompt = prompt_of(make_task("add"))
    assert prompt.text == (
        "1 def add(self, step):\n"
        "2     self.value -= step\n"
        "3     return self.value\n"
        ">>> test_library.py::test_add\n"
        "AssertionError\n"
        "Fix:\n"
    )
    assert prompt.lines == (15, 19, 21)


@pytest.mark.parametrize("name", ["second", "add"])
def test_reference_answer_makes_the_reference_patch(make_task: MakeTask, name: str) -> None:
    task = make_task(name)
    prompt = prompt_of(task)
    assert prompt.patch(prompt.reference_answer()) == task.reference


def test_answer_needs_no_reference(make_task: MakeTask) -> None:
    task = make_task("second")
    hidden = prompt_of(task.without_reference())
    assert hidden.text == prompt_of(task).text
    assert hidden.patch("4 return items[1]") == task.reference
    with pytest.raises(UserError, match=r"second.*no reference patch"):
        hidden.reference_answer()


@pytest.mark.parametrize(
    ("file", "first", "last"), [("library.py", 4, 900), ("library.py", 0, 8), ("library.py", 8, 4), ("gone.py", 1, 2)]
)
def test_a_target_outside_of_its_file_is_a_user_error(make_task: MakeTask, file: str, first: int, last: int) -> None:
    task = replace(make_task("second"), target=Target(file, "second", first, last))
    with pytest.raises(UserError, match=f"task 'second': {file} has no lines {first} to {last}: correct"):
        prompt_of(task)


def test_indentation_is_kept(make_task: MakeTask) -> None:
    patch = prompt_of(make_task("add")).patch("2 self.value += step")
    assert patch is not None
    (file,) = patch.files
    assert file.added == ((19, "        self.value += step"),)
    assert file.removed == ((19, "        self.value -= step"),)


@pytest.mark.parametrize(
    "answer",
    ["", "  ", "2", "2 ", "return items[1]", "0 return 1", "5 return 1", "99 x", "1234 x", "-1 x", "2\treturn 1",
     "2  indented", "2 a\n3 b", "line 2 return 1", "٣ return 1"],
)  # fmt: skip
def test_unreadable_answers_are_told_from_empty_ones(make_task: MakeTask, answer: str) -> None:
    assert prompt_of(make_task("second")).patch(answer) is None


def test_repeating_the_line_changes_nothing(make_task: MakeTask) -> None:
    patch = prompt_of(make_task("second")).patch("4 return items[2]")
    assert patch == Patch("")


def test_space_around_an_answer_does_not_count(make_task: MakeTask) -> None:
    prompt = prompt_of(make_task("second"))
    assert prompt.patch(" 4 return items[1] \n") == prompt.patch("4 return items[1]")


ANY_LINE = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1).filter(
    lambda text: text == text.strip()
)


@settings(max_examples=40, deadline=None)
@given(line=st.integers(1, 4), text=ANY_LINE)
@example(line=2, text="form\x0cfeed, carriage\rreturn, next\x85line, line\u2028separator")
def test_any_text_replaces_one_line_and_nothing_else(
    make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory, line: int, text: str
) -> None:
    prompt = prompt_of(make_task("second"))
    before = prompt.task.base.read("library.py")
    place = prompt.lines[line - 1] - 1
    expected = before.split("\n")
    indentation = expected[place][: len(expected[place]) - len(expected[place].lstrip())]
    expected[place] = indentation + text
    patch = prompt.patch(f"{line} {text}")
    assert patch is not None
    assert applied(patch, before, tmp_path_factory.mktemp("tree")) == "\n".join(expected)


def applied(patch: Patch, before: str, folder: Path) -> str:
    """What git makes of the patch."""
    (folder / "library.py").write_bytes(before.encode())
    if not patch.is_empty:
        subprocess.run(["git", "apply", "-"], cwd=folder, input=patch.text.encode(), check=True, capture_output=True)
    return (folder / "library.py").read_bytes().decode()


def test_a_reference_that_the_format_cannot_say_is_a_user_error(make_task: MakeTask) -> None:
    task = make_task("second")
    source = task.base.read("library.py")
    elsewhere = Patch.between({"library.py": source}, {"library.py": source.replace("number * 2", "number + number")})
    with pytest.raises(UserError, match="exactly one line that the prompt shows"):
        prompt_of(replace(task, reference=elsewhere)).reference_answer()


def test_a_task_without_target_is_a_user_error(make_task: MakeTask) -> None:
    with pytest.raises(UserError, match="'second' names no target function"):
        prompt_of(replace(make_task("second"), target=None))


def test_a_function_that_does_not_parse_is_shown_whole(make_task: MakeTask, library: Path) -> None:
    task = make_task("second")
    broken = task.base.read("library.py").replace("def second(items):", "def second(items:")
    prompt = prompt_of(replace(task, base=task.base.with_files({"library.py": broken}))).text
    assert '2     """Return the second item."""' in prompt
    assert (library / "library.py").read_text() != broken
