"""The outline of an edited text equals the outline of a full parse."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.datasets.mutation.mutants import mutants
from regrade.evaluators.execution import function_bodies
from regrade.evaluators.execution.function_bodies import text_outline

FOLDER = Path(function_bodies.__file__).parents[1]
SOURCES = {path.name: path.read_text() for path in sorted(FOLDER.rglob("*.py"))}
LINES = [
    "    return 1", "return 1", "        pass", "    '''A docstring.'''", '    """', "    (", "    )", "    x = [", "  y = 1",
    "    # a comment", "# a comment", "", "    else:", "else:", "    if x:", "def f():", "    def f():", "class C:",
    "    @decorator", "\tz = 1", "    x = 1 \\", "    x = '''", "'''", "        return 'a'; b = 2", "\f", "    async def f():",
    "    yield", "    pass\r", "    x = f'{(", "if True:",
]  # fmt: skip


def check_edit(before: str, after: str) -> bool:
    """The outline of the edit equals that of a full parse, or is None. Returns: is there one?"""
    outline = text_outline(before)
    edited = outline.edited(after) if outline is not None else None
    if edited is None:
        return False
    whole = text_outline(after)
    assert whole is not None
    assert edited.frame == whole.frame
    assert edited.bodies == whole.bodies
    assert edited.spans == whole.spans
    return True


@pytest.mark.parametrize("name", ["scorer.py", "baseline.py", "workspaces.py"])
def test_an_edit_of_one_body_needs_no_full_parse(name):
    text = SOURCES[name]
    outline = text_outline(text)
    for mutant in islice(mutants(text, name, seed=0), 10):
        whole = text_outline(mutant.source)
        in_one_body = outline is not None and whole is not None and len(outline.differing(whole) or ()) == 1
        assert check_edit(text, mutant.source) == in_one_body


@given(st.sampled_from(sorted(SOURCES)), st.integers(0, 2**32), st.data())
def test_any_edit_of_lines_has_the_outline_of_a_full_parse(name, seed, data):
    lines = SOURCES[name].split("\n")
    draw = random.Random(seed)
    at = draw.randrange(len(lines))
    new = data.draw(st.lists(st.sampled_from(LINES), max_size=3))
    after = "\n".join([*lines[:at], *new, *lines[at + draw.randrange(3) :]])
    check_edit(SOURCES[name], after)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    return 1\n", "    return 1\nx = 2\n"),
        ("    return 1\n", "    '''Now documented.'''\n    return 1\n"),
        ("    return 1\n", "    return (1\n"),
        ("    return 1\n", "    return 1\ndef g():\n    return 1\n"),
        ("    return 1\n", "    return 1 \\\n"),
        ("    return 1\n", "    return '''\n"),
    ],
)
def test_an_edit_that_extends_beyond_the_function_is_rejected(old, new):
    before = f"def f(a):\n{old}\n\ndef h():\n    return 3\n"
    outline = text_outline(before)
    assert outline is not None
    assert outline.edited(before.replace(old, new, 1)) is None


def test_a_chain_of_edits_updates_the_spans():
    text = "class A:\n    def f(self):\n        return 1\n\n    def g(self):\n        return 2\n\n\ndef h():\n    return 3\n"
    outline = text_outline(text)
    for old, new in (("return 1", "x = 1\n        return x"), ("return 3", "return 4"), ("return 2", "return (\n 5)")):
        text = text.replace(old, new)
        assert outline is not None
        outline = outline.edited(text)
        assert outline == text_outline(text)


def test_a_docstring_that_shares_a_line_with_the_body_is_no_part_of_it():
    text = (
        "def f(a):\n    'Doc.'; return 1\n\ndef g():\n    '''Long\\n    one.'''; return 2\n\ndef h():\n    return 3\n"
    )
    outline = text_outline(text)
    assert outline is not None
    assert [span.name for span in outline.spans] == ["h"]
    assert outline.differing(text_outline(text.replace("Doc.", "Another."))) is None
    assert outline.differing(text_outline(text.replace("return 1", "return 2"))) is None
    assert outline.differing(text_outline(text.replace("return 3", "return 4"))) == {"h"}
