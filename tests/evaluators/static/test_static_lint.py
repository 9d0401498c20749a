"""Lint: findings that the patch adds or removes, by the pristine tree's rules; a patch cannot hide them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regrade.evaluators.static import lint
from regrade.rewards import LintDelta, style

Make = Callable[..., Any]
CLEAN = "import os\n\n\ndef f(a):\n    return os.path.join(a)\n"
DIRTY = "import os\nimport sys\n\n\ndef f(a, b=[]):\n    if a == None:\n        pass\n    return os.path.join(a)\n"


def rules(delta: LintDelta) -> list[str]:
    return sorted(finding.rule for finding in delta.added)


def test_new_findings_have_rule_file_line_and_message(patched: Make) -> None:
    delta = patched({"pkg/a.py": CLEAN}, {"pkg/a.py": DIRTY}).probe(lint)
    assert rules(delta) == ["B006", "E711", "F401"]
    unused = next(finding for finding in delta.added if finding.rule == "F401")
    assert (unused.file, unused.line) == ("pkg/a.py", 2)
    assert "sys" in unused.message
    assert delta.removed == ()
    assert delta.changed_lines == 5
    assert "default rules" in delta.rules
    assert style(delta).value == pytest.approx(2 / 5)


def test_fixed_findings_are_removed_ones(patched: Make) -> None:
    delta = patched({"a.py": DIRTY}, {"a.py": CLEAN}).probe(lint)
    assert delta.added == ()
    assert sorted(finding.rule for finding in delta.removed) == ["B006", "E711", "F401"]


def test_old_findings_that_only_move_are_neither(patched: Make) -> None:
    moved = "import os\nimport sys\n\n\ndef g():\n    return 1\n\n\n" + DIRTY.split("\n\n\n")[1]
    delta = patched({"a.py": DIRTY}, {"a.py": moved}).probe(lint)
    assert (delta.added, delta.removed) == ((), ())
    to_another_file = patched({"a.py": DIRTY, "b.py": ""}, {"a.py": None, "b.py": DIRTY}).probe(lint)
    assert (to_another_file.added, to_another_file.removed) == ((), ())


@pytest.mark.parametrize(
    "hiding",
    [
        {"pkg/a.py": "# ruff: noqa\n" + DIRTY},
        {"pkg/a.py": "# flake8: noqa\n" + DIRTY},
        {"pkg/a.py": DIRTY.replace("import sys", "import sys  # noqa")},
        {"pkg/a.py": DIRTY, "ruff.toml": "exclude = ['pkg']\n"},
        {"pkg/a.py": DIRTY, "pkg/.ruff.toml": "lint.ignore = ['ALL']\n"},
        {"pkg/a.py": DIRTY, ".gitignore": "pkg/\n"},
        {"pkg/a.py": DIRTY, "pyproject.toml": "[tool.ruff.lint]\nselect = []\n"},
    ],
)
def test_nothing_in_the_patch_hides_a_finding(patched: Make, hiding: dict[str, str]) -> None:
    delta = patched({"pkg/a.py": CLEAN}, hiding).probe(lint)
    assert {"E711", "F401"} <= set(rules(delta))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ruff.toml", "line-length = 60\nlint.select = ['E501']\n"),
        (".ruff.toml", "line-length = 60\nselect = ['E501']\n"),
        ("pyproject.toml", "[tool.ruff]\nline-length = 60\nexclude = ['*']\n[tool.ruff.lint]\nselect = ['E501']\n"),
        ("ruff.toml", "extend = 'base.toml'\nline-length = 60\n"),
    ],
)
def test_the_projects_own_rules_are_applied(patched: Make, name: str, text: str) -> None:
    files = {"pkg/a.py": CLEAN, name: text, "base.toml": "line-length = 200\nlint.select = ['E501']\n"}
    long = CLEAN + "x = '" + "x" * 60 + "'\nimport json\n"
    delta = patched(files, {"pkg/a.py": long}).probe(lint)
    assert rules(delta) == ["E501"]
    assert delta.rules == f"the project's rules ({name})"


def test_the_nearest_settings_and_their_ignores_count(patched: Make) -> None:
    files = {
        "ruff.toml": "lint.select = ['F']\n",
        "tools/ruff.toml": "lint.select = ['E']\nlint.ignore = ['E711']\n",
        "tools/a.py": CLEAN,
        "pkg/a.py": CLEAN,
    }
    delta = patched(files, {"tools/a.py": DIRTY, "pkg/a.py": DIRTY}).probe(lint)
    assert rules(delta) == ["F401"]


def test_per_file_ignores_and_import_order_see_the_projects_layout(patched: Make) -> None:
    files = {
        "ruff.toml": "lint.select = ['I', 'F']\nlint.per-file-ignores = {'pkg/api.py' = ['F401']}\n",
        "pkg/__init__.py": "",
        "pkg/api.py": "",
        "pkg/use.py": "",
    }
    sorted_imports = "import requests\n\nimport pkg\n"
    delta = patched(files, {"pkg/api.py": sorted_imports, "pkg/use.py": sorted_imports}).probe(lint)
    assert [(finding.rule, finding.file) for finding in delta.added] == [("F401", "pkg/use.py")] * 2


def test_settings_that_ruff_refuses_fall_back_to_the_default_rules(patched: Make) -> None:
    files = {"a.py": CLEAN, "ruff.toml": "lint.select = ['NOSUCH']\n"}
    delta = patched(files, {"a.py": DIRTY}).probe(lint)
    assert rules(delta) == ["B006", "E711", "F401"]
    assert "ruff refused" in delta.rules


def test_lines_may_be_as_long_as_the_file_had_them(patched: Make) -> None:
    long = "x = '" + "x" * 120 + "'\n"
    assert rules(patched({"a.py": long}, {"a.py": long + long.replace("x =", "y =")}).probe(lint)) == []
    assert rules(patched({"b.py": CLEAN}, {"b.py": CLEAN + long}).probe(lint)) == ["E501"]


def test_unparsable_files_are_named(patched: Make) -> None:
    delta = patched({"a.py": CLEAN, "b.py": CLEAN}, {"a.py": "def f(:\n", "b.py": DIRTY}).probe(lint)
    assert delta.unparsable == ("a.py",)
    assert rules(delta) == ["B006", "E711", "F401"]
    assert style(delta).value == 0.0


def test_files_that_never_parsed_have_no_findings(patched: Make) -> None:
    delta = patched({"a.py": "x = {{ y }}:\n"}, {"a.py": "x = {{ z }}:\n"}).probe(lint)
    assert (delta.added, delta.unparsable) == ((), ())


def test_syntax_newer_than_the_projects_target_is_no_parse_error(patched: Make) -> None:
    files = {
        "a.py": "x = 1\n",
        "pyproject.toml": "[project]\nrequires-python = '>=3.7'\n[tool.ruff.lint]\nselect = ['F']\n",
    }
    delta = patched(files, {"a.py": "x = 1\nmatch x:\n    case 1:\n        pass\n"}).probe(lint)
    assert (delta.added, delta.unparsable) == ((), ())


def test_other_encodings_and_other_languages(patched: Make) -> None:
    latin = b"# -*- coding: latin-1 -*-\nx = '\xe9'\n"
    case = patched({"a.py": latin}, {"a.py": latin.decode("utf-8", "surrogateescape") + "import os\n"})
    assert rules(case.probe(lint)) == ["E402", "F401"] or rules(case.probe(lint)) == ["F401"]
    assert patched({"a.txt": "x\n"}, {"a.txt": "y\n"}).probe(lint) == LintDelta((), (), 0)
    assert patched({"c.py": DIRTY}, {}).probe(lint).changed_lines == 0


def test_deleting_and_adding_files(patched: Make) -> None:
    deleted = patched({"a.py": DIRTY}, {"a.py": None}).probe(lint)
    assert (deleted.added, len(deleted.removed)) == ((), 3)
    assert rules(patched({"c.py": ""}, {"b.py": DIRTY}).probe(lint)) == ["B006", "E711", "F401"]


def test_tests_are_not_linted(patched: Make) -> None:
    delta = patched({"tests/test_a.py": CLEAN}, {"tests/test_a.py": DIRTY}).probe(lint)
    assert delta == LintDelta((), (), 0)
