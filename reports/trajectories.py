"""The steps of an agent's attempt for readers: each action, what it showed, and what it did to the full tests."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import escape
from rich.console import Console
from rich.text import Text

from regrade.datasets.episodes import Episode, EpisodeEnd, Step
from regrade.datasets.plurals import counted
from regrade.datasets.visible_text import visible
from regrade.evaluators.storage.episode_file import EpisodeFile, episodes_path
from regrade.evaluators.storage.rows import attempt
from regrade.evaluators.storage.run import Run
from regrade.evaluators.storage.step_effects import MeasuredSteps, StepEffect, load_steps, steps_path
from regrade.reports.number_format import MINUS, duration

LONGEST_TITLE = 140
SHORTEST_VALUE = 12
"""Characters that an argument needs in a title."""
LONGEST_OBSERVATION = 1600
LONGEST_ARGUMENT = 1200
FIRST_STEPS, LAST_STEPS = 40, 20
"""Shown steps of a longer episode."""
TRAJECTORY_BUDGET = 1_200_000
"""Characters of observations and arguments in one page, with their markup; later trajectories have neither."""
MARKUP = 60
"""Characters of markup around a text."""
LONGEST_FIRST_LINE = 100
TAG = re.compile(r"</?[\w -]+>|<(\w+)>[^<]{0,40}</\1>")
"""A line such as `<output>` or `<returncode>0</returncode>`, in which other programs wrap what an action showed."""
SHORTEST_SECONDS = 0.05
"""Shorter times are not shown."""
NOTHING: tuple[Any, ...] = ("", None, False, [], {})
"""Arguments that say nothing."""
CHANGE = {"old": "del", "old_str": "del", "new": "add", "new_str": "add"}
"""Argument of an edit, here and in other programs -> its kind of line."""
MEASURE = "`regrade report RUN --steps` runs the full suite after each change"


@dataclass(frozen=True, kw_only=True)
class StepView:
    """One step."""

    number: int
    title: str
    marks: tuple[tuple[str, str], ...]
    """(tone, text): what the step did to the full tests, what its own tests showed, a mistake."""
    seconds: str
    is_mistake: bool
    details: tuple[tuple[str, str], ...]
    """(name, text) of each argument that the title does not show whole, and the action as it was written."""
    change: tuple[tuple[str, str], ...]
    """(kind, text) of each line of an edit's old and new text: add or del."""
    observation: str
    broken_tests: tuple[str, ...]

    @property
    def first_line(self) -> str:
        """The first line of the observation that is more than a tag."""
        lines = [line.strip() for line in self.observation.splitlines() if line.strip()]
        plain = next((line for line in lines if not TAG.fullmatch(line)), lines[0] if lines else "details")
        return plain[:LONGEST_FIRST_LINE]


@dataclass(frozen=True, kw_only=True)
class TrajectoryView:
    """The steps of one attempt."""

    head: str
    steps: tuple[StepView, ...]
    note: str
    """What is cut, or not measured; empty if nothing is."""

    @property
    def size(self) -> int:
        """Characters of the texts that may be left out."""
        texts = [text for step in self.steps for text in _texts(step)]
        return sum(len(escape(text)) + MARKUP for text in texts)

    @property
    def bare(self) -> TrajectoryView:
        """Without observations and arguments."""
        steps = tuple(replace(step, details=(), change=(), observation="", broken_tests=()) for step in self.steps)
        cut = "What the steps showed is left out to keep this page small: `regrade explain` prints it."
        return TrajectoryView(head=self.head, steps=steps, note=" ".join(filter(None, (self.note, cut))))


def _texts(step: StepView) -> Iterator[str]:
    yield step.observation
    yield from (text for _, text in (*step.details, *step.change))
    yield from step.broken_tests


class RunTrajectories:
    """The trajectories of a run's attempts, within the budget of one page."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._episodes: dict[str, EpisodeFile] = {}
        self._measured: dict[str, dict[tuple[Any, ...], MeasuredSteps]] = {}
        self._spent = 0

    def of(self, row: Mapping[str, Any]) -> TrajectoryView | None:
        """The trajectory of a row's attempt; None if it has none.

        Raises:
            UserError: a file is damaged.
        """
        policy = str(row["policy"])
        if policy not in self._episodes:
            rows = self._run.evaluation(policy)
            self._episodes[policy] = EpisodeFile(episodes_path(rows))
            self._measured[policy] = load_steps(steps_path(rows)) if len(self._episodes[policy]) else {}
        episode = self._episodes[policy].get(row)
        if episode is None:
            return None
        view = trajectory_view(episode, effects_for(row, self._measured[policy]))
        if self._spent + view.size > TRAJECTORY_BUDGET:
            return view.bare
        self._spent += view.size
        return view


def effects_for(
    row: Mapping[str, Any], measured: Mapping[tuple[Any, ...], MeasuredSteps]
) -> tuple[StepEffect, ...] | None:
    """The measured effects of a row's changes; None if there are none of its answer."""
    steps = measured.get(attempt(row))
    return steps.changes if steps is not None and steps.belongs_to(row) else None


def trajectory_view(episode: Episode, effects: Sequence[StepEffect] | None) -> TrajectoryView:
    """The steps of an episode; of a very long one the first and the last.

    Args:
        effects: of its changes; None: not measured.
    """
    by_step = {effect.step: effect for effect in effects or ()}
    views = [_step_view(number, step, by_step.get(number)) for number, step in enumerate(episode.steps)]
    notes = []
    if len(views) > FIRST_STEPS + LAST_STEPS:
        notes.append(f"{len(views) - FIRST_STEPS - LAST_STEPS} steps in the middle are left out.")
        views = [*views[:FIRST_STEPS], *views[-LAST_STEPS:]]
    if effects is None and any(step.is_change for step in episode.steps):
        notes.append(f"What the changes did to the full tests is not measured: {MEASURE}.")
    return TrajectoryView(head=_head(episode), steps=tuple(views), note=" ".join(notes))


def _head(episode: Episode) -> str:
    parts = [counted(len(episode.steps), "step")]
    if episode.test_runs:
        parts.append(counted(episode.test_runs, "test run"))
    if episode.tokens:
        parts.append(f"{episode.tokens:,} tokens")
    known = [step.seconds for step in episode.steps if not math.isnan(step.seconds)]
    if known:
        parts.append(f"{duration(sum(known))} of tools")
    if episode.end is not EpisodeEnd.UNKNOWN:
        parts.append(str(episode.end))
    return ", ".join(parts)


def _step_view(number: int, step: Step, effect: StepEffect | None) -> StepView:
    title, shown = _title(step)
    details = [
        (name, cut_middle(_text(value), LONGEST_ARGUMENT))
        for name, value in step.arguments.items()
        if name not in shown and name not in CHANGE and value not in NOTHING
    ]
    if step.action and title != step.action.strip():
        details = [("action", cut_middle(step.action, LONGEST_ARGUMENT))] + [
            (name, text) for name, text in details if _text(step.arguments[name]) not in step.action
        ]
    return StepView(
        number=number + 1,
        title=title,
        marks=tuple(_marks(step, effect)),
        seconds=duration(step.seconds) if step.seconds >= SHORTEST_SECONDS else "",
        is_mistake=step.is_mistake,
        details=tuple(details),
        change=tuple(_change(step)),
        observation=cut_middle(step.observation.strip("\n"), LONGEST_OBSERVATION),
        broken_tests=effect.tests if effect is not None else (),
    )


def _change(step: Step) -> Iterator[tuple[str, str]]:
    for name, kind in CHANGE.items():
        for line in cut_middle(_text(step.arguments.get(name) or ""), LONGEST_ARGUMENT).splitlines():
            yield kind, f"{'-' if kind == 'del' else '+'} {line}"


def _title(step: Step) -> tuple[str, frozenset[str]]:
    """One line that names the action, and the arguments that it shows whole."""
    action = step.action.strip()
    is_own = bool(step.patch_digest)  # the text of another program's step has thoughts
    if is_own and action and "\n" not in action and len(action) <= LONGEST_TITLE:
        return action, frozenset(step.arguments)
    if not step.tool:
        return _first_line(action) or "no action", frozenset()
    texts, shown = [step.tool], set()
    for name, value in step.arguments.items():
        if name in CHANGE or value in NOTHING:
            continue
        text = " ".join(map(str, value)) if isinstance(value, list | tuple) else _text(value)
        first = text.strip().partition("\n")[0]
        room = LONGEST_TITLE - len(" ".join(texts)) - 1
        if room < SHORTEST_VALUE:
            break
        if first == text and len(text) <= room:
            shown.add(name)
            texts.append(text)
        else:
            texts.append(f"{first[: room - 1]}…")
    return " ".join(texts), frozenset(shown)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _first_line(text: str) -> str:
    first = text.strip().partition("\n")[0]
    return first if len(first) <= LONGEST_TITLE else f"{first[: LONGEST_TITLE - 1]}…"


def _marks(step: Step, effect: StepEffect | None) -> Iterator[tuple[str, str]]:
    if step.is_mistake:
        yield "plain", "mistake"
    if step.tests is not None:
        tone = "good" if step.tests.is_green else "bad"
        failed, passed = len(step.tests.failed), step.tests.passed
        yield tone, f"saw {failed} failed, {passed} passed" if failed else f"saw {passed} passed"
    if effect is None:
        return
    if effect.unknown:
        yield "plain", "effect unknown"
        return
    changes = (
        ("good", "+", effect.fixed, "fixed"),
        ("bad", MINUS, effect.unfixed, "fixed"),
        ("bad", MINUS, effect.broken, "broken"),
        ("good", "+", effect.restored, "restored"),
    )
    shown = [(tone, f"{sign}{count} {word}") for tone, sign, count, word in changes if count]
    yield from shown
    if effect.has_stopped:
        yield "bad", f"tests {effect.end}"
    if not shown and not effect.has_stopped:
        yield "plain", "no test differs"


def cut_middle(text: str, longest: int) -> str:
    """The first two thirds and the last third of a text that is too long, with the number of characters between."""
    if len(text) <= longest:
        return text
    first, last = 2 * longest // 3, longest // 3
    return f"{text[:first]}\n[{len(text) - first - last:,} characters cut]\n{text[-last:]}"


STYLES = {"good": "green", "bad": "red", "plain": "dim"}


def print_trajectory(view: TrajectoryView, console: Console, *, with_observations: bool = False) -> None:
    """Print a line for each step: its action, its marks and seconds.

    Args:
        with_observations: print also what each step showed.
    """
    console.print(Text(f"\nSteps: {visible(view.head)}", style="bold"))
    width = len(str(view.steps[-1].number)) if view.steps else 1
    for step in view.steps:
        line = Text(f"{step.number:>{width}}  {visible(step.title)}")
        for tone, words in step.marks:
            line.append("  ")
            line.append(words, style=STYLES[tone])
        if step.seconds:
            line.append(f"  {step.seconds}", style="dim")
        console.print(line, soft_wrap=True)
        if with_observations:
            _print_details(step, " " * (width + 2), console)
    if view.note:
        console.print(Text(visible(view.note)), style="dim")


def _print_details(step: StepView, indent: str, console: Console) -> None:
    change = (("", text) for _, text in step.change)
    broken = (("breaks", test) for test in step.broken_tests)
    for name, text in (*step.details, *change, ("", step.observation), *broken):
        for line in text.splitlines() if text else ():
            label = f"{name}: " if name else ""
            console.print(Text(f"{indent}{label}{visible(line)}"), style="dim" if not name else "", soft_wrap=True)
