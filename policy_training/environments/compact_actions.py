"""A grammar of one-line actions for small models, over the same tools.

    open shop/cart.py 10 40     read these lines
    find def total              search for a regular expression
    17 return price * rate      replace line 17 of the open file, which keeps its indentation
    test                        run the tests that the task shows
    undo                        take back the last change
    submit                      hand in

The one-line answer of a single turn, `LINE new text`, is the special case of one such action: see
`policies/single_turn_prompt.py`. There the numbers count the shown lines of the function, here those of the file.
"""

from __future__ import annotations

import re

from regrade.policy_training.environments.agent_tools import RepositoryEnvironment
from regrade.policy_training.environments.edited_tree import ToolMistakeError

SHOWN_LINES = 40
"""Lines that `open` shows if no last line is given."""
ACTIONS = "open PATH [FIRST [LAST]], find PATTERN, LINE new text, test, undo or submit"
_OPEN = re.compile(r"open (?P<path>\S+)(?: (?P<first>[0-9]{1,7}))?(?: (?P<last>[0-9]{1,7}))?")
_LINE = re.compile(r"(?P<number>[0-9]{1,7}) (?P<text>\S.*)")


class CompactActions:
    """Executes one-line actions on an environment; knows which file is open."""

    def __init__(self, environment: RepositoryEnvironment, file: str = "") -> None:
        """
        Args:
            file: the file that is open at first; empty: none.
        """
        self.environment = environment
        self.file = file

    def act(self, line: str) -> str:
        """Execute the action of a line; returns the observation. An unreadable line is a step as well."""
        environment, text = self.environment, line.strip()
        if match := _OPEN.fullmatch(text):
            first = int(match["first"] or 1)
            self.file = match["path"]
            return environment.read_file(self.file, first, int(match["last"] or first + SHOWN_LINES - 1))
        if text.startswith("find ") and "\n" not in text:
            return environment.search(text.removeprefix("find "))
        if text in ("test", "undo", "submit"):
            tools = {"test": environment.run_tests, "undo": environment.undo, "submit": environment.submit}
            return tools[text]()
        if match := _LINE.fullmatch(text):
            return self._replace(int(match["number"]), match["text"])
        return environment.session.unreadable(f"no action: write {ACTIONS}")

    def _replace(self, number: int, text: str) -> str:
        """Replace one line of the open file; the line keeps its indentation."""
        session, path = self.environment.session, self.file

        def replace() -> str:
            if not path:
                raise ToolMistakeError("no file is open: open one first")
            lines = session.tree.read(path).split("\n")
            if not 1 <= number <= len(lines):
                raise ToolMistakeError(f"{path} has no line {number}")
            old = lines[number - 1]
            lines[number - 1] = old[: len(old) - len(old.lstrip())] + text
            if lines[number - 1] == old:
                raise ToolMistakeError(f"line {number} already reads so")
            session.tree.write(path, "\n".join(lines))
            return f"{number} {lines[number - 1].strip()}"

        return session.perform("replace_line", {"path": path, "line": number, "text": text}, replace)
