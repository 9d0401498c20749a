"""The style of a project without lint settings: inferred from its own code, applied to patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regrade.evaluators.static import lint
from regrade.rewards import LintDelta, style

Make = Callable[..., Any]


def module(number: int, quote: str = '"', documented: bool = True) -> str:
    """A module of four functions and a class that follows every habit."""
    text = f"{quote}{quote}{quote}Module {number}.{quote}{quote}{quote}\n\nimport json\nimport os\n\n"
    for name in ("load", "store", "drop", "find"):
        doc = f'    """{name.title()} it."""\n' if documented else ""
        text += f"\ndef {name}_{number}(path, key={quote}k{quote}):\n{doc}    return os.path.join(path, key, json.dumps({quote}{name}{quote}))\n\n"
    doc = '    """A box."""\n\n' if documented else ""
    return f"{text}\nclass Box{number}:\n{doc}    size = {quote}large{quote}\n"


def project(**options: Any) -> dict[str, str]:
    return {f"pkg/m{number}.py": module(number, **options) for number in range(5)}


def rules(delta: LintDelta) -> list[str]:
    return sorted(finding.rule for finding in delta.added)


def added(patched: Make, files: dict[str, str], lines: str) -> LintDelta:
    return patched(files, {"pkg/m0.py": files["pkg/m0.py"] + lines}).probe(lint)


STRANGER = "\n\ndef LoadAll(path):\n    return [path, 'a', \"b\"]\n"


def test_a_patch_is_linted_by_the_habits_of_the_project(patched: Make) -> None:
    delta = added(patched, project(), STRANGER)
    assert rules(delta) == ["D103", "N802", "Q000"]
    assert delta.rules.startswith("the project's habits (")
    assert "lower-case functions" in delta.rules
    assert "more)" in delta.rules
    assert style(delta).value == pytest.approx(2 / 5)
    assert "LoadAll" in style(delta).why or "D103" in style(delta).why


def test_code_in_the_projects_style_has_no_findings(patched: Make) -> None:
    delta = added(patched, project(), '\n\ndef load_all(path):\n    """Load all."""\n    return [path, "a"]\n')
    assert rules(delta) == []


def test_other_habits_other_findings(patched: Make) -> None:
    files = project(quote="'", documented=False)
    delta = added(patched, files, STRANGER)
    assert rules(delta) == ["N802", "Q000"]  # nobody documents functions here
    quoted = next(finding for finding in delta.added if finding.rule == "Q000")
    assert "Double quotes found" in quoted.message


def test_mixed_quotes_are_no_habit(patched: Make) -> None:
    files = project() | {f"pkg/n{number}.py": module(number, "'") for number in range(5)}
    delta = added(patched, files, STRANGER)
    assert "Q000" not in rules(delta)


def test_the_limit_of_line_length_is_the_projects(patched: Make) -> None:
    line = "\n\n" + "x = [" + ", ".join(["1"] * 30) + "]\n"
    assert rules(added(patched, project(), line)) == ["E501"]
    wide = project() | {"pkg/wide.py": "".join(f"x{n} = [{', '.join(['1'] * 32)}]\n" for n in range(50))}
    assert rules(added(patched, wide, line)) == []


def test_unsorted_imports_stand_out_among_sorted_ones(patched: Make) -> None:
    files = project()
    text = files["pkg/m0.py"].replace("import json\nimport os\n", "import os\nimport json\n")
    assert rules(patched(files, {"pkg/m0.py": text}).probe(lint)) == ["I001"]


def test_default_rules_that_the_project_often_violates_are_ignored(patched: Make) -> None:
    lambdas = "".join(f"f{n} = lambda x: x + {n}\n" for n in range(60))
    files = project() | {"pkg/lambdas.py": lambdas}
    delta = patched(files, {"pkg/lambdas.py": lambdas + "g = lambda x: x\nimport re\n"}).probe(lint)
    assert "E731" not in rules(delta)
    assert "F401" in rules(delta)


def test_the_patch_does_not_influence_the_habits(patched: Make) -> None:
    files = project()
    many = {f"pkg/other{number}.py": module(number, "'") for number in range(40)}
    delta = patched(files, many | {"pkg/m0.py": files["pkg/m0.py"] + STRANGER}).probe(lint)
    assert {"D103", "N802", "Q000"} <= {f.rule for f in delta.added if f.file == "pkg/m0.py"}


def test_tests_are_not_in_the_sample(patched: Make) -> None:
    files = project() | {f"tests/test_{n}.py": module(n, "'", documented=False) for n in range(30)}
    assert rules(added(patched, files, STRANGER)) == ["D103", "N802", "Q000"]


def test_a_small_project_gets_the_default_rules(patched: Make) -> None:
    assert "default rules" in patched({"a.py": "x = 1\n"}, {"a.py": "x = 2\n"}).probe(lint).rules


def test_an_undecodable_project_gets_the_default_rules(patched: Make) -> None:
    files = {f"pkg/m{number}.py": b"\xff\xfe def f(:" for number in range(5)} | {"pkg/a.py": "x = 1\n"}
    assert "default rules" in patched(files, {"pkg/a.py": "x = 2\n"}).probe(lint).rules
