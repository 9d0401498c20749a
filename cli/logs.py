"""The log on stderr: `regrade -v VERB` and the environment variable REGRADE_LOG."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from regrade.cli.console import one_line
from regrade.datasets.errors import UserError

VARIABLE = "REGRADE_LOG"
ALL = "regrade"
NAMES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def levels(verbose: int) -> dict[str, str]:
    """Logger -> level, from REGRADE_LOG and the number of `-v`, which outweighs the level that REGRADE_LOG gives all.

    Raises:
        UserError: REGRADE_LOG holds something else than levels and loggers.
    """
    found: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(","))):
        name, equals, level = (word.strip() for word in entry.rpartition("="))
        name = name if equals else ALL
        if level.upper() not in NAMES:
            raise _wrong(entry, f"{level!r} is no level: choose from {', '.join(NAMES)}")
        if name != ALL and not name.startswith(f"{ALL}."):
            raise _wrong(entry, f"{name!r} is no logger of {ALL}: give one such as regrade.evaluators.scoring=DEBUG")
        found[name] = level.upper()
    if verbose:
        found[ALL] = "INFO" if verbose == 1 else "DEBUG"
    return found


def _wrong(entry: str, why: str) -> UserError:
    return UserError(f"the environment variable {VARIABLE} has the entry {entry!r}: {why}")


@contextmanager
def on_stderr(chosen: Mapping[str, str]) -> Iterator[None]:
    """Meanwhile what the chosen loggers log at their levels goes to stderr; nothing where none is chosen."""
    if not chosen:
        yield
        return
    handler = _Stderr()
    before = {name: logging.getLogger(name).level for name in chosen}
    logging.getLogger(ALL).addHandler(handler)
    for name, level in chosen.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        logging.getLogger(ALL).removeHandler(handler)
        for name, old in before.items():
            logging.getLogger(name).setLevel(old)


class _Stderr(logging.Handler):
    """Writes to what stderr is at that moment: while a progress bar is shown, that prints above it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(one_line(self.format(record)), file=sys.stderr)
        except Exception:
            self.handleError(record)
