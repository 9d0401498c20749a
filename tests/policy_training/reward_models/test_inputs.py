"""What a model reads: the same for equal changes, never longer than its context, and what is cut is said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.sandboxes import SandboxError
from regrade.evaluators.static.files import ChangedFile
from regrade.policy_training.reward_models import inputs
from regrade.policy_training.reward_models.inputs import FEWEST_TOKENS, InputReader, PatchInput, unified
from tests.policy_training.reward_models.conftest import RIGHT, patch_of


def encode(text: str) -> list[int]:
    return list(text.encode("utf-8", "surrogateescape"))


def text_of(read: PatchInput) -> str:
    return bytes([*read.prompt, *read.completion]).decode("utf-8", "surrogateescape")


@pytest.fixture(scope="module")
def reader() -> InputReader:
    return InputReader(encode, 4000)


def one(reader: InputReader, task: Task, patch: Patch) -> PatchInput:
    (read,) = reader.read([(task, patch)])
    assert isinstance(read, PatchInput), read
    return read


def test_it_reads_the_instruction_the_diff_and_the_dependent_modules(reader: InputReader, sums: list[Task]) -> None:
    assert text_of(one(reader, sums[0], patch_of(sums[0], RIGHT))) == (
        "Task: `add_0` must add 0.\n"
        "Tests that must pass: test_0.py::test\n"
        "assert 1 == 1\n"
        "Patch:\n"
        "--- sum_0.py\n"
        "+++ sum_0.py\n"
        "@@ -1 +1 @@\n"
        " def add_0(number):\n"
        "-    return number - 0\n"
        "+    return number + 0\n"
        "Dependent modules:\n"
        "totals.py: sum_0.py::add_0 -> totals.py; 0 test files\n"
        "  1 from sum_0 import add_0\n"
        "  5 return sum(map(add_0, items))\n"
        "Verdict:"
    )


def test_the_prompt_is_that_of_the_task_alone(reader: InputReader, sums: list[Task]) -> None:
    first, second = (one(reader, sums[0], patch) for patch in (patch_of(sums[0], RIGHT), Patch("")))
    assert first.prompt == second.prompt
    assert "(no change)" in text_of(second)
    assert "No dependent modules." in text_of(second)


def test_equal_changes_have_equal_inputs_however_they_are_written(reader: InputReader, sums: list[Task]) -> None:
    patch = patch_of(sums[0], RIGHT)
    without_context = Patch(
        "--- a/sum_0.py\n+++ b/sum_0.py\n@@ -2 +2 @@\n-    return number - 0\n+    return number + 0\n"
    )
    assert one(reader, sums[0], patch) == one(reader, sums[0], without_context)


def test_changes_of_tests_are_named_and_not_shown(reader: InputReader, sums: list[Task]) -> None:
    before = sums[0].base.read("test_0.py")
    cheat = Patch.between({"test_0.py": before}, {"test_0.py": "def test():\n    secret = 1\n"})
    found = text_of(one(reader, sums[0], cheat))
    assert "(changes of test_0.py are ignored)" in found
    assert "secret" not in found


def test_the_reference_is_never_read(reader: InputReader, sums: list[Task]) -> None:
    task = replace(sums[0], reference=patch_of(sums[0], RIGHT))
    assert one(reader, task, Patch("")) == one(reader, sums[0], Patch(""))


def test_a_patch_that_does_not_apply_has_a_reason(reader: InputReader, sums: list[Task]) -> None:
    (found,) = reader.read([(sums[0], Patch.between({"gone.py": "a\n"}, {"gone.py": "b\n"}))])
    assert isinstance(found, str)
    assert found.startswith("the patch does not apply")


def test_a_failure_of_the_machine_is_no_property_of_the_patch(
    reader: InputReader, sums: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inputs, "prepare", full)
    with pytest.raises(SandboxError, match="No space left"):
        list(reader.read([(sums[0], Patch(""))]))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, Patch]:
    """A long instruction, a long patch, and many dependent modules."""
    root = tmp_path_factory.mktemp("large")
    before = "".join(f"def f{n}(a):\n    return a + {n}\n\n\n" for n in range(40))
    after = before.replace("return a + ", "return a - ")
    (root / "core.py").write_text(before)
    for n in range(30):
        (root / f"user_{n}.py").write_text(f"from core import f{n}\n\nVALUE = f{n}(1)\n")
    instruction = "\n".join(f"Line {n} of the instruction." for n in range(100))
    task = Task(
        id="large", repository="r", base=Tree(root), instruction=instruction, fail_to_pass=("test_a.py::test",),
        pass_to_pass=(), failure="\n".join(["Traceback"] * 50 + ["AssertionError: the last line"]),
    )  # fmt: skip
    return task, Patch.between({"core.py": before}, {"core.py": after})


@pytest.mark.parametrize("tokens", [FEWEST_TOKENS, 100, 200, 500, 1000, 2000, 4000, 20_000])
def test_no_input_is_longer_than_the_context_and_what_is_cut_is_said(large: tuple[Task, Patch], tokens: int) -> None:
    read = one(InputReader(encode, tokens), *large)
    assert len(read.prompt) + len(read.completion) <= tokens
    text = text_of(read)
    assert text.endswith("Verdict:")
    gone = sum(map(int, re.findall(r"\[(\d+) lines? left out\]", text)))
    if tokens >= 200:  # otherwise there is no room for the words
        named = sum(int(number) for number in re.findall(r"(\d+) of \d+ lines? of", read.cut))
        assert gone == named
    if tokens == 20_000:
        assert (gone, read.cut) == (0, "")
        assert "user_29.py" in text
    else:
        assert read.cut.startswith("not read: ")
    if 500 <= tokens < 4000:
        assert "Task: Line 0 of" in text, "an instruction begins with what matters"
        assert "the last line" in text, "a failure ends with it"
        assert "-    return a + 0" in text


def test_the_context_of_a_patch_goes_first(large: tuple[Task, Patch]) -> None:
    """Where the changed lines fit without their context, all of them are read."""
    read = one(InputReader(encode, 8000), *large)
    assert all(f"+    return a - {n}\n" in text_of(read) for n in range(40))
    assert "the patch's context of more than" in read.cut
    assert "lines of the patch" not in read.cut


def test_a_long_line_is_cut_in_its_middle(reader: InputReader, sums: list[Task]) -> None:
    line = "x = '" + "a" * 5000 + "'"
    new = Patch.between({}, {"data.py": line + "\n"})
    text = text_of(one(reader, sums[0], new))
    assert re.search(r"\+x = 'a+ \[\d+ characters left out\] a+'", text)
    assert len(text) < 1000


lines = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=12).map(lambda each: "".join(f"{x}\n" for x in each))


@given(lines, lines, st.integers(0, 3))
@settings(max_examples=200)
def test_a_diff_has_all_changed_lines_and_leads_from_one_side_to_the_other(
    before: str, after: str, context: int
) -> None:
    shown = list(unified(ChangedFile("f", "f", before, after), context))[2:]
    file = ChangedFile("f", "f", before, after)
    assert [line[1:] for line in shown if line.startswith("-")] == [text for _, text in file.removed]
    assert [line[1:] for line in shown if line.startswith("+")] == [text for _, text in file.added]
    if context == 3 and before != after:
        for side, text in (("-", before), ("+", after)):
            for first, hunk in _hunks(shown, side):
                own = [line[1:] for line in hunk if line[0] in (" ", side)]
                assert text.split("\n")[first - 1 : first - 1 + len(own)] == own


def _hunks(shown: list[str], side: str) -> Iterator[tuple[int, list[str]]]:
    starts = [index for index, line in enumerate(shown) if line.startswith("@@ ")]
    for start, end in zip(starts, [*starts[1:], len(shown)], strict=True):
        match = re.fullmatch(r"@@ -(\d+) \+(\d+) @@", shown[start])
        assert match is not None
        yield int(match[1 if side == "-" else 2]), shown[start + 1 : end]


def test_a_renamed_a_new_and_a_deleted_file() -> None:
    assert list(unified(ChangedFile("b", "a", "x\n", "x\n"), 3)) == ["--- a", "+++ b"]
    assert list(unified(ChangedFile("a", "a", None, "x\n"), 3)) == ["--- /dev/null", "+++ a", "@@ -1 +1 @@", "+x"]
    assert list(unified(ChangedFile("a", "a", "x\n", None), 3)) == ["--- a", "+++ /dev/null", "@@ -1 +1 @@", "-x"]
