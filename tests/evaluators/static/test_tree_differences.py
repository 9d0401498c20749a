"""Static evidence and the columns of rows come from the difference of two trees: however a patch is written, and however
the lines of the files end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.applying import as_applied
from regrade.datasets.hunks import split_patch
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.attribution.hunk_groups import hunk_groups
from regrade.evaluators.evaluation.footprint import footprint
from regrade.evaluators.evaluation.rollout_scoring import _changed_lines, changes_nothing
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.scoring.probes import STATIC
from regrade.evaluators.static import lint, readability
from regrade.evaluators.static.docstrings import with_pristine_docstrings
from regrade.rewards.evidence import LintDelta, PatchText

BEFORE = (
    '"""A module."""\n\nimport os\n\n\ndef area(width, height):\n    """The area."""\n    return width*height\n\n\n'
    "def name():\n    return os.sep\n\n\ndef last(items):\n    if items:\n        return items[-1]\n    return None\n"
)
AFTER = BEFORE.replace("import os\n", "import os\nimport re\n").replace(
    "    return None\n", "    for item in items:\n        if item == None:\n            return item\n    return None\n"
)
USER = "from shop import area\n\nprint(area(2, 3))\n"
FIRST = BEFORE.replace("import os\n", "import os\nimport re\n")


def hunk(old: str, new: str) -> str:
    """A hunk that replaces all lines, the equal ones too."""
    lines = [*(f"-{line}\n" for line in old.splitlines()), *(f"+{line}\n" for line in new.splitlines())]
    return f"@@ -1,{old.count(chr(10))} +1,{new.count(chr(10))} @@\n" + "".join(lines)


SIDES = "--- a/shop.py\n+++ b/shop.py\n"
SHORT = Patch.between({"shop.py": BEFORE}, {"shop.py": AFTER}).text
FORMS = {
    "every line": SIDES + hunk(BEFORE, AFTER),
    "two entries": SIDES + hunk(BEFORE, FIRST) + SIDES + hunk(FIRST, AFTER),
    "there and back": SIDES + hunk(BEFORE, USER) + SIDES + hunk(USER, AFTER),
    "no prefix": SHORT.replace("a/shop", "shop").replace("b/shop", "shop"),
    "in a mail": f"From 1 Mon\nSubject: fix\n\n---\n{SHORT}-- \n2.39\n",
    "in CR LF": SHORT.replace("\n", "\r\n"),
    "with caches": SHORT
    + "diff --git a/x.pyc b/x.pyc\nnew file mode 100644\nBinary files /dev/null and b/x.pyc differ\n",
}


def task_of(root: Path, end: str = "\n") -> Task:
    root.mkdir()
    for path, text in {"shop.py": BEFORE, "user.py": USER}.items():
        (root / path).write_bytes(text.replace("\n", end).encode())
    return Task(id="t", repository="r", base=Tree(root), instruction="", fail_to_pass=(), pass_to_pass=())


def columns(task: Task, patch: Patch) -> dict[Any, Any]:
    workspace = prepare(task, patch)
    found: dict[Any, Any] = {kind: STATIC[kind](workspace.before, workspace.after, patch, task) for kind in STATIC}
    found[PatchText] = found[PatchText].files  # its text is the patch as it was written
    return found | {
        "lines": _changed_lines(task, patch), "empty": changes_nothing(task, patch), "symbols": footprint(task, patch)
    }  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_a_patch_changes_no_column(tmp_path: Path, form: str) -> None:
    task = task_of(tmp_path / "repo")
    plain = columns(task, Patch(SHORT))
    assert {finding.rule for finding in plain[LintDelta].added} >= {"F401"}
    assert plain["lines"] == 4
    assert columns(task, Patch(FORMS[form])) == plain
    task = replace(task, reference=Patch(FORMS[form]))
    assert columns(task, Patch(SHORT)) == columns(replace(task, reference=Patch(SHORT)), Patch(FORMS[form]))


def test_files_in_cr_lf_have_the_evidence_of_others(tmp_path: Path) -> None:
    body = SHORT.split("@@", 1)
    text = (
        body[0]
        + "@@"
        + "".join(
            line if line.startswith("@@") else line.replace("\n", "\r\n")
            for line in f"@@{body[1]}"[2:].splitlines(keepends=True)
        )
    )
    text = text.replace("@@\r\n", "@@\n")
    plain, converted = task_of(tmp_path / "lf"), task_of(tmp_path / "crlf", "\r\n")
    assert prepare(converted, Patch(text)).after.read("shop.py") == AFTER.replace("\n", "\r\n")
    assert columns(converted, Patch(text)) == columns(plain, Patch(SHORT))
    whole = Patch(SHORT.replace("\n", "\r\n"))
    assert prepare(converted, whole).after.read("shop.py") == AFTER.replace("\n", "\r\n")
    assert columns(converted, whole) == columns(plain, Patch(SHORT))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("is_converted", [False, True])
def test_hunks_on_either_ending_are_separable(tmp_path: Path, end: str, is_converted: bool) -> None:
    """Attribution scores subsets of hunks: each changes its own lines, and no line's ending."""
    task = task_of(tmp_path / "repo", end)
    texts = [{"shop.py": text.replace("\n", end)} for text in (BEFORE, AFTER)]
    patch = Patch.between(*texts)
    if is_converted:
        patch = Patch(patch.text.replace("\r\n", "\n").replace("\n", "\r\n"))
    split = split_patch(as_applied(task.base, patch))
    assert [(hunk.name, hunk.added, hunk.removed) for hunk in split.hunks] == [
        ("shop.py:4", 1, 0),
        ("shop.py:18", 3, 0),
    ]
    for chosen, text in (({0}, FIRST), ({1}, AFTER.replace("import re\n", "")), ({0, 1}, AFTER)):
        assert prepare(task, split.subset(chosen)).after.read("shop.py") == text.replace("\n", end)
    assert [len(groups) for groups in hunk_groups(task, split)] == [2, 2]


def test_a_finding_lies_on_its_own_line_after_a_form_feed(tmp_path: Path) -> None:
    """A form feed ends no line of Python: an edit of the line before a finding changes no finding."""
    before = "A = 1\n\x0c\n\n\ndef f(x):\n    print(x, 1)\n    return x == None\n"
    after = before.replace("x, 1", "x, 2")
    (tmp_path / "m.py").write_text(before)
    base = Tree(tmp_path)
    task = Task(id="t", repository="r", base=base, instruction="", fail_to_pass=(), pass_to_pass=())
    assert any(rule == "E711" for rule in found_rules(base, task, Patch.between({}, {"n.py": before})))
    assert found_rules(base, task, Patch.between({"m.py": before}, {"m.py": after})) == []


def test_the_whole_of_an_edited_function_is_read_after_a_form_feed(tmp_path: Path) -> None:
    before = "A = 1\n\x0c\n\n\ndef f(x):\n    return x\n"
    after = before.replace("return x", "return [y for y in x if y or x] if x else [z for z in x if z and x]")
    for name, text in (("m.py", before), ("n.py", before.replace("\x0c", "# a"))):
        (tmp_path / name).write_text(text)
    base = Tree(tmp_path)
    task = Task(id="t", repository="r", base=base, instruction="", fail_to_pass=(), pass_to_pass=())
    changes = []
    for name, old, new in (
        ("m.py", before, after),
        ("n.py", *(text.replace("\x0c", "# a") for text in (before, after))),
    ):
        patch = Patch.between({name: old}, {name: new})
        (function,) = readability.probe(base, prepare(task, patch).after, patch, task).functions
        changes.append(replace(function, file=""))
    assert changes[0] == changes[1]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_examples_are_put_back_whatever_ends_the_lines(end: str) -> None:
    before = (
        f'# a{end}# b{end}def f():{end}    """The one.{end}{end}    >>> f(){end}    1{end}    """{end}    return 1{end}'
    )
    after = before.replace("    1", "    2").replace("return 1", "return 2")
    assert with_pristine_docstrings(before, after) == before.replace("return 1", "return 2")


def found_rules(base: Tree, task: Task, patch: Patch) -> list[str]:
    workspace = prepare(task, patch)
    delta = lint.probe(base, workspace.after, patch, task)
    return [finding.rule for finding in (*delta.added, *delta.removed)]
