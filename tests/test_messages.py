"""Messages of the Python API name parameters; the command line names its options instead."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main

from regrade.cli.console import with_options
from regrade.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("datasets", "rewards", "evaluators", "policy_training", "reports")


def options(command: click.Command) -> Iterator[str]:
    """The long options of a command and of its subcommands."""
    for parameter in command.params:
        yield from (name for name in parameter.opts if name.startswith("--"))
    for each in getattr(command, "commands", {}).values():
        yield from options(each)


OPTIONS = {*options(typer.main.get_command(app))} - {"--help", "--json", "--quiet", "--version"}
"""Without those that other programs have too."""


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of the strings with several words; docstrings and commands in backticks are left out."""
    tree = ast.parse(path.read_text("utf-8"))
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            text = re.sub(r"`[a-z]+ [^`]*`", "", node.value)
            if " " in text.strip():
                yield node.lineno, text


def test_there_are_options_and_messages() -> None:
    assert {"--fail-to-pass", "--time-limit", "--test-runs", "--out"} <= OPTIONS
    assert sum(len([*messages(path)]) for path in (ROOT / "datasets").rglob("*.py")) > 100


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_message_of_the_python_api_names_an_option(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in messages(path)
        for name in re.findall(r"--[a-z]+(?:-[a-z]+)*", text)
        if name in OPTIONS and "inside" not in path.parts
    ]
    assert found == []


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("set a longer limit with `time_limit=SECONDS`", "set a longer limit with --time-limit SECONDS"),
        ("fix with `fail_to_pass=`, or `all`", "fix with --fail-to-pass, or `all`"),
        ("add `mixed_versions=True` to compare", "add --mixed-versions to compare"),
        ("each test with `test_limit=SECONDS`", "each test with --test-timeout SECONDS"),
        ("keep the rows of one policy of the candidate", "choose one with --candidate-policy"),
        ("Diff(files=('a',)) and `git diff > fix.diff`", "Diff(files=('a',)) and `git diff > fix.diff`"),
    ],
)
def test_the_command_line_names_its_options(message: str, expected: str) -> None:
    assert with_options(message) == expected


def parameters() -> Iterator[str]:
    """The names in messages such as "`time_limit=SECONDS`"."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for _, text in messages(path):
                yield from (match.group() for match in re.finditer(r"`[a-z]+(?:_[a-z]+)*=[^`]*`", text))


def test_every_parameter_in_a_message_has_an_option() -> None:
    found = {*parameters()}
    assert len(found) > 10
    wrong = {each for each in found if with_options(each).split()[0] not in {*OPTIONS, "--json"}}
    assert wrong == set()
