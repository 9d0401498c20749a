"""The display of an agent's trajectory as it happens, and of the verdict on its change."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regrade.datasets.plurals import counted, listed
from regrade.datasets.visible_text import visible

if TYPE_CHECKING:
    from rich.console import Console

    from regrade.datasets.episodes import Episode, Step
    from regrade.datasets.tasks import Task
    from regrade.rewards.evidence import EvidenceSet, TestRun

LONGEST_ARGUMENTS, SHOWN_LINES, LONGEST_SHOWN = 100, 6, 110
"""Characters of a step's arguments; lines of an observation, and characters of a line."""
LONGEST_DIFF = 200
"""Lines of the change that are printed; all are in the file."""
MOST_TESTS = 10
"""Names of tests of one kind that are printed."""


class TrajectoryDisplay:
    """Prints each step in a few lines: plain on a pipe, in colour on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._number = 0

    def begin(self, task: Task, model: str, endpoint: str) -> None:
        """What is to be done, by whom, and how the tests are now."""
        failing = len(task.fail_to_pass) + len(task.unnamed)
        state = f"passing tests: {len(task.pass_to_pass)}, failing: {failing}"
        self._print(f"{task.base.root}: {state}; {model}{f' at {endpoint}' if endpoint else ''}", "bold")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While the model answers: a sign of life, on a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status("the model answers", spinner="dots"):
            yield

    def answer(self, message: Mapping[str, Any], tokens: int, seconds: float) -> None:
        """What the model says besides its actions."""
        words = " ".join(str(message.get("content") or "").split())
        spent = f"{seconds:.1f} s{', ' if tokens else ''}{counted(tokens, 'token') if tokens else ''}"
        self._print(f"    [{spent}]{f' {_short(words, 2 * LONGEST_SHOWN)}' if words else ''}", "dim italic")

    def step(self, step: Step) -> None:
        """An action, and the beginning of what it showed."""
        self._number += 1
        name = step.tool or "no action"
        text = " ".join((step.action or _arguments(step.arguments)).split())
        head = f"{self._number:>3}  {name}{f'  {_short(text, LONGEST_ARGUMENTS)}' if text else ''}"
        self._print(f"{head}  ({step.seconds:.1f} s)", _style(step))
        lines = step.observation.splitlines()
        for line in lines[:SHOWN_LINES]:
            self._print(f"       {_short(line, LONGEST_SHOWN)}", "red" if step.is_mistake else "")
        if len(lines) > SHOWN_LINES:
            self._print(f"       ... {counted(len(lines) - SHOWN_LINES, 'more line')}", "dim")

    def end(self, episode: Episode) -> None:
        """Why it ended, and what it used."""
        used = [counted(len(episode.steps), "step"), counted(episode.test_runs, "test run")]
        if episode.tokens:
            used.append(counted(episode.tokens, "token"))
        self._print(f"{episode.end.value} after {', '.join(used)}", "bold")
        if episode.steps and not any(step.tool for step in episode.steps):
            advice = "give a model that calls tools, or one trained on one-line actions with --format compact"
            self._print(f"no action could be read from all that the model wrote: {advice}", "yellow")

    def _print(self, text: str, style: str = "") -> None:
        _print(self._console, text, style)


@dataclass(frozen=True)
class AgentVerdict:
    """The verdict of the whole suite on an agent's change."""

    verdict: str
    episode: Episode
    run: TestRun | None
    """None: nothing was changed, or it could not be measured."""
    cause: str = ""
    """Why it could not be measured; empty: it was."""
    not_judged: tuple[str, ...] = ()
    """Changed files of tests and configuration: the verdict is that of their original state."""

    @property
    def broken(self) -> Sequence[str]:
        return self.run.broken if self.run is not None else ()

    @property
    def fixed(self) -> Sequence[str]:
        return (*self.run.fixed, *self.run.also_fixed) if self.run is not None else ()

    @property
    def is_harmless(self) -> bool:
        """Was it measured to break nothing, by tests that it does not tamper with?"""
        from regrade.reports.patch_table import TAMPERS
        from regrade.rewards.evidence import End

        is_clean = self.run is not None and self.run.end is End.COMPLETED and not self.run.broken
        return is_clean and self.verdict != TAMPERS

    def to_json(self) -> dict[str, Any]:
        """For `regrade agent --json`."""
        episode = self.episode
        return {
            "verdict": self.verdict,
            "fixed": list(self.fixed),
            "broken": list(self.broken),
            "not_judged": list(self.not_judged),
            "end": episode.end.value,
            "steps": len(episode.steps),
            "test_runs": episode.test_runs,
            "tokens": episode.tokens,
            "patch": episode.patch.text,
        }


def show_verdict(console: Console, task: Task, episode: Episode, evidence: EvidenceSet | None) -> AgentVerdict:
    """Print the change and its verdict."""
    from regrade.reports.patch_table import PatchRow
    from regrade.rewards import tests
    from regrade.rewards.evidence import Integrity, TestRun

    if evidence is None:
        _print(console, "nothing was changed", "yellow")
        return AgentVerdict("nothing was changed", episode, None)
    _show_diff(console, episode.patch.text)
    run = evidence.records.get(TestRun)
    integrity: Integrity | None = evidence.records.get(Integrity)
    row = PatchRow("", tests.evaluate(evidence), run, integrity=integrity)
    result = AgentVerdict(
        row.verdict,
        episode,
        run,
        "" if run is not None else evidence.infrastructure[TestRun],
        integrity.ignored_files if integrity is not None else (),
    )
    _print(console, f"verdict of all tests: {row.verdict}", "bold green" if result.is_harmless else "bold red")
    if run is None:
        return result
    if not result.is_harmless and not run.broken and row.cause:
        _print(console, f"  {row.cause}", "red")
    before, kept = len(task.pass_to_pass), len(run.pass_to_pass) - len(run.broken)
    _print(console, f"  passed before and now: {kept} of {counted(before, 'test')}")
    failing = [*task.fail_to_pass, *task.unnamed]
    if failing:
        _print(console, f"  failed before, and pass now: {len(result.fixed)} of {counted(len(failing), 'test')}")
    for word, names, style in (("fixed", result.fixed, "green"), ("broken", result.broken, "red")):
        for name in names[:MOST_TESTS]:
            _print(console, f"  {word}: {name}", style)
        if len(names) > MOST_TESTS:
            _print(console, f"  {word}: and {len(names) - MOST_TESTS} more", style)
    if result.not_judged:
        listing = listed(result.not_judged, MOST_TESTS)
        _print(console, f"  not judged, since the original tests and configuration decide: {listing}", "yellow")
    return result


def _show_diff(console: Console, text: str) -> None:
    styles = {"+": "green", "-": "red", "@": "cyan"}
    lines = text.splitlines()
    for line in lines[:LONGEST_DIFF]:
        _print(console, line, styles.get(line[:1], ""))
    if len(lines) > LONGEST_DIFF:
        _print(console, f"... {counted(len(lines) - LONGEST_DIFF, 'more line')}", "dim")


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(visible(text), style=style or None, markup=False, soft_wrap=True)


def _style(step: Step) -> str:
    if step.is_mistake:
        return "red"
    if step.tests is not None:
        return "green" if step.tests.is_green else "yellow"
    return "bold" if step.is_change else "cyan"


def _arguments(arguments: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in arguments.items())


def _value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
