"""What a language model reads of a task and a patch: instruction, unified diff, and the modules that depend on it.

    Task: <instruction>                    Patch:                              Dependent modules:
    Tests that must pass: <ids>            --- shop.py                         cart.py: shop.py::price -> cart.py
    <failure of one of them>               @@ -7 +7 @@                           12 total += price(item)
                                           -    return rate                    Verdict:
                                           +    return price * rate

The text on the left is that of the task alone, so that the model runs it once for all patches of the task. The diff is
made from the two trees, so that patches with the same effect have the same text, however they are written; files that
every run takes from the base tree (tests, configuration) are named, and not shown.

The context of a model is limited. A third of it is for the task: its middle is cut first, as an instruction begins with
what matters and a failure ends with it. Of the rest the patch has two thirds, and what the dependent modules leave: it
loses the unchanged lines around its changes first, then its last changes. Dependent modules are cut from the least
dependent one. What is cut is said in the text, and in the evidence.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.plurals import counted
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.workspaces import Workspace, prepare
from regrade.evaluators.sandboxes import SandboxError
from regrade.evaluators.scoring.jobs import Job
from regrade.evaluators.scoring.static_workers import StaticWorkers
from regrade.evaluators.static.files import LARGEST, ChangedFile, changed_files, read
from regrade.policy_training.policies.task_descriptions import MOST_TESTS
from regrade.rewards.evidence import Impact, ImpactedModule

INPUT_FORMAT = 1
"""Version of the text. It grows with each change of it: a model reads only what it was trained on."""
TASK_SHARE = 1 / 3
"""Of the context, for the task."""
PATCH_SHARE = 2 / 3
"""Of the context after the task, for the patch; more if the dependent modules need less."""
FEWEST_TOKENS = 64
"""The smallest context in which each section has room for a few lines."""
CONTEXTS = (3, 1, 0)
"""Unchanged lines around a change, the widest that fit."""
LONGEST_LINE = 400
"""Characters of a line; a longer one is cut in its middle."""
MOST_USES = 4
"""Lines of a dependent module that name a changed symbol."""
END = "Verdict:"
Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class PatchInput:
    """The tokens of a task and a patch."""

    prompt: tuple[int, ...]
    """Of the task; the same for all of its patches."""
    completion: tuple[int, ...]
    """Of the patch and the modules that depend on it."""
    cut: str = ""
    """What was left out, in words; empty: nothing."""


@dataclass
class InputReader:
    """Reads tasks and patches as tokens."""

    encode: Encode
    """Text -> token ids, without special tokens."""
    tokens: int
    """The longest input; at least FEWEST_TOKENS."""
    _workers: StaticWorkers = field(default_factory=StaticWorkers, init=False, repr=False)

    def __post_init__(self) -> None:
        weakref.finalize(self, self._workers.close)

    def read(self, jobs: Iterable[Job]) -> Iterator[PatchInput | str]:
        """The input of each job, in order; or the reason why there is none: the patch does not apply.

        Raises:
            SandboxError: an input could not be read, for a reason that the patch did not cause.
        """
        tasks: dict[int, _Section] = {}
        for task, patch in jobs:
            if id(task) not in tasks:
                tasks[id(task)] = self._task(task)
            try:
                yield self._input(tasks[id(task)], task, patch)
            except PatchError as error:
                yield f"the patch does not apply: {error}"
            except OSError as error:
                raise SandboxError(f"{type(error).__name__}: {error}") from error

    def _task(self, task: Task) -> _Section:
        room = int(self.tokens * TASK_SHARE)
        sections = ["Task: " + task.instruction.strip(), *_tests(task)]
        return self._cut_middle("the task", [line for section in sections for line in section.split("\n")], room)

    def _input(self, task: _Section, job_task: Task, patch: Patch) -> PatchInput:
        workspace = prepare(job_task, patch)
        files = changed_files(workspace.before, workspace.after, job_task)
        impact = self._workers.evidence(Impact, workspace.before, workspace.after, patch, job_task)
        end = self.encode(END)
        room = self.tokens - len(task.ids) - len(end)
        modules = list(_modules(impact, workspace))
        least = self._cut_end("the dependent modules", modules, room - int(room * PATCH_SHARE))
        diff = self._diff(files, workspace.ignored, room - len(least.ids))
        rest = self._cut_end("the dependent modules", modules, room - len(diff.ids))
        cuts = [section.cut for section in (task, diff, rest) if section.cut]
        return PatchInput(tuple(task.ids), (*diff.ids, *rest.ids, *end), f"not read: {', '.join(cuts)}" if cuts else "")

    # ------------------------------------------------------------ sections within their room

    def _diff(self, files: Sequence[ChangedFile], ignored: Sequence[str], room: int) -> _Section:
        for context in CONTEXTS:
            lines = ["Patch:", *(line for file in files for line in unified(file, context))]
            if not files:
                lines.append("(no change)")
            if ignored:
                lines.append(f"(changes of {', '.join(ignored)} are ignored)")
            whole = self._whole(lines, room)
            if whole is not None:
                unshown = f"the patch's context of more than {counted(context, 'line')}"
                return _Section(whole, "" if context == CONTEXTS[0] else unshown)
        return self._cut_end("the patch", lines, room)

    def _whole(self, lines: Sequence[str], room: int) -> list[int] | None:
        """The tokens of the lines; None: there is no room for them."""
        ids: list[int] = []
        for line in lines:
            ids += self._line(line)
            if len(ids) > room:
                return None
        return ids

    def _cut_end(self, what: str, lines: Sequence[str], room: int) -> _Section:
        """All lines, or the first ones that there is room for."""
        whole = self._whole(lines, room)
        if whole is not None:
            return _Section(whole)
        kept = self._cut_at(lines, room - len(self._left_out(len(lines))))
        return self._with_gap(what, kept, [], len(lines), room)

    def _cut_middle(self, what: str, lines: Sequence[str], room: int) -> _Section:
        """All lines, or the first and the last ones, half of the room each."""
        whole = self._whole(lines, room)
        if whole is not None:
            return _Section(whole)
        left = room - len(self._left_out(len(lines)))
        head = self._cut_at(lines, left // 2)
        tail = self._cut_at(lines[len(head) :][::-1], left - sum(map(len, head)))[::-1]
        return self._with_gap(what, head, tail, len(lines), room)

    def _with_gap(
        self, what: str, head: Sequence[list[int]], tail: Sequence[list[int]], lines: int, room: int
    ) -> _Section:
        left_out = lines - len(head) - len(tail)
        ids = [token for line in (*head, self._left_out(left_out), *tail) for token in line]
        return _Section(ids if len(ids) <= room else [], f"{left_out} of {counted(lines, 'line')} of {what}")

    def _cut_at(self, lines: Sequence[str], room: int) -> list[list[int]]:
        kept: list[list[int]] = []
        for line in lines:
            tokens = self._line(line)
            room -= len(tokens)
            if room < 0:
                break
            kept.append(tokens)
        return kept

    def _line(self, text: str) -> list[int]:
        if len(text) > LONGEST_LINE:
            half = LONGEST_LINE // 2
            text = f"{text[:half]} [{len(text) - LONGEST_LINE} characters left out] {text[-half:]}"
        return self.encode(text + "\n")

    def _left_out(self, lines: int) -> list[int]:
        return self._line(f"[{counted(lines, 'line')} left out]")


@dataclass(frozen=True)
class _Section:
    ids: list[int]
    cut: str = ""


def unified(file: ChangedFile, context: int) -> Iterator[str]:
    """A file's change as lines of a unified diff, in linear time; hunk headers name the first lines alone."""
    yield f"--- {file.old_path if file.before is not None else '/dev/null'}"
    yield f"+++ {file.path if file.after is not None else '/dev/null'}"
    if any(text is not None and len(text) > LARGEST for text in (file.before, file.after)):
        yield "(too large to be read)"
        return
    lines = list(_edit_script(file))
    for start, end in _hunks([index for index, (mark, *_) in enumerate(lines) if mark != " "], context):
        _, old, new, _ = lines[start]
        yield f"@@ -{old} +{new} @@"
        yield from (mark + text for mark, _, _, text in lines[start:end])


def _hunks(changed: Sequence[int], context: int) -> list[tuple[int, int]]:
    """[start, end) of the changed lines with the unchanged ones around them; neighbours are one hunk."""
    hunks: list[tuple[int, int]] = []
    for index in changed:
        start, end = max(0, index - context), index + context + 1
        if hunks and start <= hunks[-1][1]:
            hunks[-1] = (hunks[-1][0], end)
        else:
            hunks.append((start, end))
    return hunks


def _edit_script(file: ChangedFile) -> Iterator[tuple[str, int, int, str]]:
    """(mark, line number before, line number after, text) of each line of both sides."""
    old, new = ((text or "").removesuffix("\n").split("\n") if text else [] for text in (file.before, file.after))
    removed, added = {number for number, _ in file.removed}, {number for number, _ in file.added}
    first, second = 1, 1
    while first <= len(old) or second <= len(new):
        if first in removed:
            yield "-", first, second, old[first - 1]
            first += 1
        elif second in added or first > len(old):
            yield "+", first, second, new[second - 1]
            second += 1
        else:
            yield " ", first, second, old[first - 1]
            first, second = first + 1, second + 1


def _tests(task: Task) -> Iterator[str]:
    if task.fail_to_pass:
        yield "Tests that must pass: " + ", ".join(task.fail_to_pass[:MOST_TESTS])
        more = len(task.fail_to_pass) - MOST_TESTS
        if more > 0:
            yield f"[{counted(more, 'test')} left out]"
    if task.failure.strip():
        yield task.failure.strip()


def _modules(impact: Impact, workspace: Workspace) -> Iterator[str]:
    """The modules that depend on the change, the most dependent ones first, with the lines that name its symbols."""
    if impact.unparsable:
        yield f"Cannot be parsed: {', '.join(impact.unparsable)}"
    for test, symbol in impact.dangling_tests:
        yield f"{test} uses {symbol}, which is removed"
    for chain in impact.new_cycles:
        yield f"New import cycle: {' -> '.join(chain)}"
    if not impact.modules:
        yield "No dependent modules."
        return
    yield "Dependent modules:"
    symbols = {symbol.rpartition("::")[2].rpartition(".")[2] for symbol in impact.changed_symbols}
    names = {name for name in symbols if name.isidentifier()}
    for module in sorted(impact.modules, key=lambda module: (-module.weight, module.module)):
        yield _described(module)
        text = read(workspace.after, module.module)
        if names and text is not None and len(text) <= LARGEST:
            yield from _uses(text, names)


def _described(module: ImpactedModule) -> str:
    gone = f"; uses {', '.join(module.dangling)}, which is removed" if module.dangling else ""
    return f"{module.module}: {' -> '.join(module.path)}; {counted(len(module.tests), 'test file')}{gone}"


def _uses(text: str, names: set[str]) -> Iterator[str]:
    named = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(names)))})\b")
    found = [(number, line) for number, line in enumerate(text.split("\n"), 1) if named.search(line[:LONGEST_LINE])]
    yield from (f"  {number} {line.strip()}" for number, line in found[:MOST_USES])
