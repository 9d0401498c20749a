"""Episodes in a grammar of one-line actions, for small models, over the same tools.

    2 return price * rate       replace line 2 of what is open; the line keeps its indentation
    open shop/cart.py 10 40     read these lines
    find def total              search for a regular expression
    test                        run the tests that the task shows
    undo                        take back the last change
    submit                      hand in

An edit that would lead to a tree whose tests the agent saw fail is refused: small models repeat their failed edits.

At first the function of the prompt is open, with the prompt's line numbers (`policies/single_turn_prompt.py`), so the
answer of a policy that answers once is an episode of one action. After `open`, the numbers are those of the file.
"""

from __future__ import annotations

import re
from dataclasses import replace

from regrade.datasets.episodes import Episode, Step
from regrade.policy_training.environments.agent_tools import RepositoryEnvironment
from regrade.policy_training.environments.edited_tree import ToolMistakeError
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.policies.transcripts import Transcript, Turn

SUBMIT = "submit"
SHOWN_LINES = 40
"""Lines that `open` shows if no last line is given."""
LONGEST_COMPACT = 400
"""Characters of an observation: a small model reads slowly."""
ACTIONS = "open PATH [FIRST [LAST]], find PATTERN, LINE new text, test, undo or submit"
_OPEN = re.compile(r"open (?P<path>\S+)(?: (?P<first>[0-9]{1,7}))?(?: (?P<last>[0-9]{1,7}))?")
_LINE = re.compile(r"(?P<number>[0-9]{1,7}) (?P<text>\S[^\n]*)")
_PLACE = re.compile(r"[^:\n]+:\d+: (?P<source>.*)")
"""The first line of a test's message: where it failed, and the line of source."""


class CompactEpisode:
    """One episode of an environment as text."""

    def __init__(self, environment: RepositoryEnvironment, task_id: str) -> None:
        """Begin an episode.

        Raises:
            UserError: the environment has no such task.
        """
        self.environment = environment
        instruction = environment.reset(task_id)
        self._file = ""
        self._lines: tuple[int, ...] | None = None
        """For each line number that the policy sees, that of the file; None: they are the file's own."""
        task = environment.session.tests.described_task()
        if task.target is None:
            self.prompt = f"{instruction}\nFix:\n"
        else:
            shown = prompt_of(task)
            self.prompt, self._file, self._lines = shown.text, task.target.file, shown.lines

    def act(self, line: str) -> str | None:
        """Execute the action of one line; an unreadable one is a step as well.

        Returns:
            what the policy sees, or None if the episode is over.
        """
        session, text = self.environment.session, line.strip()
        if session.is_over():
            return None
        before = len(session.steps)
        self._execute(text)
        if len(session.steps) == before:  # the time ran out just now
            return None
        step = session.steps[-1]
        session.steps[-1] = replace(step, action=line, observation=_compact(step))
        return None if session.is_over() else session.steps[-1].observation

    def _execute(self, text: str) -> None:
        environment = self.environment
        if match := _OPEN.fullmatch(text):
            first = int(match["first"] or 1)
            environment.read_file(match["path"], first, int(match["last"] or first + SHOWN_LINES - 1))
            if environment.session.steps and not environment.session.steps[-1].is_mistake:
                self._file, self._lines = match["path"], None
        elif text.startswith("find ") and "\n" not in text:
            environment.search(text.removeprefix("find "))
        elif text == "test":
            environment.run_tests()
        elif text == "undo":
            environment.undo()
        elif text == SUBMIT:
            environment.submit()
        elif match := _LINE.fullmatch(text):
            self._replace(int(match["number"]), match["text"])
        else:
            environment.session.unreadable(f"no action: write {ACTIONS}")

    def _replace(self, number: int, text: str) -> None:
        """Replace one line of what is open."""
        session, path, shown = self.environment.session, self._file, self._lines

        def replace_line() -> str:
            if not path:
                raise ToolMistakeError("no file is open: open one first")
            lines = session.tree.read(path).split("\n")
            last = len(lines) if shown is None else len(shown)
            if not 1 <= number <= last:
                raise ToolMistakeError(f"there is no line {number}")
            place = (number if shown is None else shown[number - 1]) - 1
            old = lines[place]
            lines[place] = old[: len(old) - len(old.lstrip())] + text
            if lines[place] == old:
                raise ToolMistakeError(f"line {number} already reads so")
            session.tree.write(path, "\n".join(lines))
            if (seen := session.seen_red()) is not None:
                session.tree.undo()
                raise ToolMistakeError(f"tried before: {len(seen.failed)} failed")
            return "ok"

        session.perform("replace_line", {"path": path, "line": number, "text": text}, replace_line)

    def episode(self) -> Episode:
        """The record so far."""
        return self.environment.session.episode()

    def transcript(self) -> Transcript:
        """The text so far."""
        turns = [Turn(step.action, step.observation) for step in self.environment.session.steps]
        if turns:
            turns[-1] = Turn(turns[-1].action)
        return Transcript(self.prompt, tuple(turns))


def _compact(step: Step) -> str:
    """The observation of a step in few words."""
    if step.is_mistake:
        return f"error: {_first_line(step.observation, 100)}"
    if step.tests is not None:
        if step.tests.is_green:
            return "passed"
        return f"{len(step.tests.failed)} failed\n{_excerpt(step.tests.message)}".rstrip()
    if step.is_change:
        return "ok"
    return step.observation[:LONGEST_COMPACT].rstrip()


def _excerpt(message: str) -> str:
    """The failed line of a test and its error, in the form of a task's `failure`."""
    lines = message.strip().split("\n")
    place = _PLACE.fullmatch(lines[0])
    if place is None:
        return _first_line(message.strip(), 160)
    return "\n".join([f">>> {place['source'].strip()[:100]}", *(line.strip()[:118] for line in lines[1:2])])


def _first_line(text: str, longest: int) -> str:
    return text.split("\n", 1)[0][:longest]
