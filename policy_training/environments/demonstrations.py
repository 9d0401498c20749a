"""Demonstrations for agents: a scripted expert that knows the reference patch, and sometimes errs.

    right edit, test, submit
    wrong edit, test (red), undo, right edit, test (green), submit
    edit that changes nothing, perhaps undo (both refused), right edit, test, submit

Every action is executed in the environment, so every observation is real, and the full suite must find the final patch
clean. Wrong edits come from a policy's own failed attempts, or are mutations of the function with the bug. A wrong edit
whose tests pass is no mistake that an agent could notice, so another is drawn. Neither wrong edits nor what is refused
are learned.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

from regrade.datasets.episodes import Episode
from regrade.datasets.errors import UserError
from regrade.datasets.mutation.mutants import Mutant, Mutations, shuffled
from regrade.datasets.patches import Patch
from regrade.datasets.syntax_trees import PARSE_ERRORS
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.untestable import as_failure
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_tools import EpisodeLimits, RepositoryEnvironment
from regrade.policy_training.environments.demonstration_formats import (
    CompactExpert,
    ExpertEpisode,
    Look,
    changed_blocks,
    changed_texts,
)
from regrade.policy_training.environments.shown_tests import ShownTests
from regrade.policy_training.policies.transcripts import Transcript, Turn
from regrade.rewards.evidence import End, Integrity, TestRun

MOST_TRIES = 4
"""Wrong edits that are tried for each mistake, until the tests are red."""
TURNS_WITH_REFUSAL = 4
"""Of the shortest trace with a refusal: an edit that changes nothing, the right edit, test, submit."""
LOOKS: tuple[Look, ...] = ("find", "open")
VAIN_UNDO = 0.5
"""Share of the refused edits after which the expert tries to take back what was never changed, if there is room."""
AT_A_TIME = 4
"""Episodes in flight: while the tests of one run, others go on."""


@dataclass(frozen=True, kw_only=True)
class DemonstrationSettings:
    """What a scripted expert shows of each task."""

    with_mistake: int = 1
    """Traces of a task that begin with a wrong edit, besides the one without; >= 0. Default: 1."""
    second_mistake: float = 0.25
    """Share of these with a second wrong edit, in [0, 1]. Default: 0.25."""
    on_the_right_line: float = 0.5
    """Share of the mutations that edit the line of the bug, in another wrong way; the others edit another line of the
    function. In [0, 1]. Default: 0.5."""
    look: float = 0.1
    """Share of the traces that search or open a file first, in [0, 1]. Default: 0.1."""
    with_refusal: int = 1
    """Traces of a task that begin with an edit which the tools refuse, because it changes nothing; half of them then
    try to take back what was never changed, which is refused as well; >= 0. A small model often writes a line as it is:
    without such traces it does not know how to go on. Default: 1."""

    def __post_init__(self) -> None:
        for name in ("with_mistake", "with_refusal"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise UserError(f"DemonstrationSettings: {name} is {value!r}; give a number of at least 0")
        for name in ("second_mistake", "on_the_right_line", "look"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UserError(f"DemonstrationSettings: {name} is {value!r}; give a share between 0 and 1")


@dataclass(frozen=True)
class Demonstration:
    """A verified trace of the expert."""

    task_id: str
    trace: int
    """Number among those of the task: the one without a mistake, then those with one, then those with a refusal."""
    episode: Episode
    learned: tuple[bool, ...]
    """Of each step: is its action to be learned?"""
    rows: tuple[Mapping[str, Any], ...]
    """As its format writes it."""

    @property
    def mistakes(self) -> int:
        """Wrong edits that it tests and takes back."""
        return self.episode.taken_back


@dataclass(frozen=True)
class NoDemonstration:
    """A trace that was not made."""

    task_id: str
    trace: int
    why: str


class Demonstrator:
    """Makes traces of tasks with references."""

    def __init__(
        self,
        tasks: Sequence[Task],
        scorer: Scorer,
        limits: EpisodeLimits,
        settings: DemonstrationSettings | None = None,
        *,
        form: type[ExpertEpisode[Any]] = CompactExpert,
        failed: Mapping[str, Sequence[Patch]] | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            limits: of the agent that will learn; no trace is longer.
            failed: task id -> patches of a policy that failed, as wrong edits to make before all others.

        Raises:
            UserError: a task has no reference.
        """
        self._references: dict[str, Patch] = {}
        for task in tasks:
            if task.reference is None:
                raise UserError(f"task {task.id!r} has no reference patch: it cannot serve as a demonstration")
            self._references[task.id] = task.reference
        self._tasks = {task.id: task.without_reference() for task in tasks}
        self._scorer = scorer
        self._limits = limits
        self._settings = settings or DemonstrationSettings()
        self._form = form
        self._failed = failed or {}
        self._seed = seed

    @property
    def recipe(self) -> str:
        """A digest of the settings, which all traces share."""
        return _digest(self._settings, self._limits, self._form.__name__, self._seed)

    def recipe_of(self, name: str) -> str:
        """A digest of all that decides what the traces of a task are; it begins with `recipe`."""
        task, failed = self._tasks[name], [patch.digest for patch in self._failed.get(name, ())]
        told = (task.instruction, task.failure, task.target, task.shown)
        return f"{self.recipe}-{_digest(task.digest, told, self._references[name].digest, failed)}"

    def wanted(self) -> list[tuple[str, int]]:
        """(task, trace) of all traces, in order. Those with a mistake, or with a refusal, are there if the limits have
        room for them."""
        return [(name, trace) for name in self._tasks for trace in range(1 + self._with_mistake + self._with_refusal)]

    @property
    def _with_mistake(self) -> int:
        return self._settings.with_mistake if self._most_mistakes else 0

    @property
    def _with_refusal(self) -> int:
        return self._settings.with_refusal if self._limits.turns >= TURNS_WITH_REFUSAL else 0

    @property
    def _most_mistakes(self) -> int:
        """For which the limits leave room; each and the right edit take three turns and a test run."""
        return max(0, min(self._limits.turns // 3, self._limits.test_runs) - 1)

    def make(self, wanted: Sequence[tuple[str, int]] | None = None) -> Iterator[Demonstration | NoDemonstration]:
        """Make traces, several at a time, in order.

        Args:
            wanted: some of `wanted()`; None: all. What a trace is does not depend on the others.
        """
        threads = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="regrade-demonstration")
        try:
            yield from threads.map(lambda each: self._trace(*each), self.wanted() if wanted is None else wanted)
        finally:
            threads.shutdown(wait=True, cancel_futures=True)

    def _trace(self, name: str, trace: int) -> Demonstration | NoDemonstration:
        task, reference = self._tasks[name], self._references[name]
        if not changed_texts(task.base, reference):
            return NoDemonstration(name, trace, "the reference changes nothing, or does not apply")
        draw = random.Random(f"{self._seed}/{name}/{trace}")
        is_refused = trace > self._with_mistake
        errs = bool(trace) and not is_refused
        mistakes = min(1 + (draw.random() < self._settings.second_mistake), self._most_mistakes) if errs else 0
        look: Look = draw.choice(LOOKS) if draw.random() < self._settings.look else ""
        wrong = self._mistakes(task, reference, mistakes, draw)
        if len(wrong) < mistakes:
            return NoDemonstration(name, trace, "no wrong edit was found that the shown tests notice")
        expert = self._begin(task)
        script = self._script(expert, reference, wrong, look, draw if is_refused else None)
        why = script if isinstance(script, str) else _play(expert, script) or self._problem(task, expert.episode())
        if isinstance(script, str) or why:
            return NoDemonstration(name, trace, why)
        learned = tuple(line.is_learned for line in script)
        return Demonstration(name, trace, expert.episode(), learned, tuple(expert.rows(learned)))

    def _begin(self, task: Task) -> ExpertEpisode[Any]:
        return self._form(RepositoryEnvironment(self._tasks, self._scorer, self._limits), task)

    def _mistakes(self, task: Task, reference: Patch, count: int, draw: random.Random) -> list[Patch]:
        """So many wrong edits that the format can express and the shown tests notice; fewer if there are none."""
        if not count:
            return []
        shown, expert, found = ShownTests.of(task), self._begin(task), []
        candidates = wrong_edits(task, reference, self._failed.get(task.id, ()), self._settings.on_the_right_line, draw)
        for patch in islice(candidates, MOST_TRIES * count if shown.ids else 0):
            if expert.edits(patch) is not None:
                seen = shown.run(shown.ids, patch, self._scorer).seen  # the episode will find it in the cache
                found += [patch] if seen is not None and not seen.is_green else []
            if len(found) == count:
                break
        return found

    def _script(
        self,
        expert: ExpertEpisode[Any],
        reference: Patch,
        wrong: Sequence[Patch],
        look: Look,
        draw_refusal: random.Random | None,
    ) -> list[ScriptedAction] | str:
        """The lines of an episode, or why there is none.

        Args:
            draw_refusal: draws what the tools refuse first; None: nothing is.
        """
        lines = [ScriptedAction(action) for action in expert.reads(reference, look)]
        vain: list[Any] = []
        if draw_refusal is not None:
            vain = expert.repeats(reference, draw_refusal, draw_refusal.random() < self._settings.on_the_right_line)
            if not vain:
                return "no edit can be expressed that changes nothing"
            vain += [expert.undo] if draw_refusal.random() < VAIN_UNDO else []
        for patch in wrong:
            edits = expert.edits(patch)
            if edits is None:
                return "the format cannot express the wrong edit"
            lines += [ScriptedAction(action, is_learned=False) for action in edits]
            lines.append(ScriptedAction(expert.test, is_green=False))
            lines += [ScriptedAction(expert.undo) for action in edits if expert.changes(action)]
        right = expert.edits(reference)
        if right is None:
            return "the format cannot express the reference"
        most = max(1, self._limits.turns - len(lines) - len(right) - 2)  # so that it can test and submit
        refused = [ScriptedAction(action, is_learned=False, is_refused=True) for action in vain[:most]]
        lines += [*refused, *(ScriptedAction(action) for action in right)]
        room = self._limits.turns - len(lines)
        if room >= 2 and self._limits.test_runs > len(wrong) and expert.environment.session.tests.ids:
            return [*lines, ScriptedAction(expert.test, is_green=True), ScriptedAction(expert.submit)]
        if room < 0 or wrong:
            return "the limits leave no room for it"
        return [*lines, *[ScriptedAction(expert.submit)][:room]]

    def _problem(self, task: Task, episode: Episode) -> str:
        """Why the patch of an episode is no clean fix by the full suite; empty: it is one."""
        (evidence,) = self._scorer.gather([(task, episode.patch)], {TestRun, Integrity})
        records = as_failure(task, evidence).records
        run, integrity = records.get(TestRun), records.get(Integrity)
        if not isinstance(run, TestRun):
            return "the full suite could not be run"
        if not run.resolved or run.end is not End.COMPLETED:
            return "the reference is no clean fix by the full suite"
        return "the reference counts as tampering" if isinstance(integrity, Integrity) and integrity.kinds else ""


class ScriptedAction(NamedTuple):
    """An action of the expert, and what must come of it."""

    action: Any
    is_learned: bool = True
    is_green: bool | None = None
    """What the tests of the action must show; None: it runs none."""
    is_refused: bool = False
    """Must the tools refuse it?"""


def _play(expert: ExpertEpisode[Any], script: Sequence[ScriptedAction]) -> str:
    """Execute a script; returns what went otherwise than it says, or nothing."""
    for line in script:
        step = expert.act(line.action)
        if step.is_mistake != line.is_refused:
            done = "refused" if step.is_mistake else "did not refuse"
            return f"the environment {done} {step.tool}: {step.observation[:200]}"
        if line.is_green is not None and step.tests is None:
            return f"the tests could not be run: {step.observation[:200]}"
        if line.is_green is not None and step.tests is not None and step.tests.is_green != line.is_green:
            return (
                "the shown tests fail with the reference"
                if line.is_green
                else "a test that noticed the wrong edit is flaky"
            )
    return ""


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def wrong_edits(
    task: Task, reference: Patch, failed: Sequence[Patch], on_the_right_line: float, draw: random.Random
) -> Iterator[Patch]:
    """Distinct wrong edits in random order: a policy's own failures first, then mutations of the mutated function."""
    right = changed_texts(task.base, reference)
    seen = [right, {}]
    own = list(failed)
    draw.shuffle(own)
    for patch in chain(own, _mutations(right, on_the_right_line, draw)):
        texts = changed_texts(task.base, patch)
        if texts not in seen:
            seen.append(texts)
            yield patch


def _mutations(
    right: Mapping[str, tuple[str | None, str | None]], on_the_right_line: float, draw: random.Random
) -> Iterator[Patch]:
    """Mutations of the functions that the reference changes."""
    near: list[Mutant] = []
    far: list[Mutant] = []
    for path, (before, after) in right.items():
        if before is None or after is None or not path.endswith(".py"):
            continue
        blocks = changed_blocks(before.split("\n"), after.split("\n"))
        lines = {line for first, end, *_ in blocks for line in range(first + 1, max(end, first + 1) + 1)}
        try:
            mutations = Mutations(before, path)
        except PARSE_ERRORS:
            continue
        for function in mutations.functions:
            if not lines.isdisjoint(range(function.first_line, function.last_line + 1)):
                for mutant in shuffled(mutations.of(function), draw.getrandbits(32)):
                    if mutations.differs(mutant):
                        (near if mutant.line in lines else far).append(mutant)
    near.reverse()
    far.reverse()
    while near or far:
        chosen = near if near and (not far or draw.random() < on_the_right_line) else far
        mutant = chosen.pop()
        yield Patch.between({mutant.file: mutant.pristine}, {mutant.file: mutant.source})


def transcript_of(row: Mapping[str, Any]) -> Transcript:
    """The transcript of a row of the compact format."""
    return Transcript(row["prompt"], tuple(Turn(**turn) for turn in row["turns"]))
