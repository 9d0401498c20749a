"""The log on stderr: `regrade -v COMMAND` and the environment variable REGRADE_LOG."""

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
LEVEL_NAMES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def log_levels(verbose: int) -> dict[str, str]:
    """Logger -> level, from REGRADE_LOG and the number of `-v`, which overrides REGRADE_LOG's level for all loggers.

    Raises:
        UserError: an entry of REGRADE_LOG is neither LEVEL nor LOGGER=LEVEL.
    """
    levels: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(","))):
        name, equals, level = (word.strip() for word in entry.rpartition("="))
        name = name if equals else ALL
        if level.upper() not in LEVEL_NAMES:
            raise _invalid(entry, f"{level!r} is not a level: use one of {', '.join(LEVEL_NAMES)}")
        if name != ALL and not name.startswith(f"{ALL}."):
            raise _invalid(entry, f"{name!r} is not a logger of {ALL}: example: regrade.evaluators.scoring=DEBUG")
        levels[name] = level.upper()
    if verbose:
        levels[ALL] = "INFO" if verbose == 1 else "DEBUG"
    return levels


def _invalid(entry: str, why: str) -> UserError:
    return UserError(f"environment variable {VARIABLE}, entry {entry!r}: {why}")


@contextmanager
def log_to_stderr(levels: Mapping[str, str]) -> Iterator[None]:
    """Write the records of these loggers to stderr, from their levels up. An empty mapping changes nothing."""
    if not levels:
        yield
        return
    handler = _StderrHandler()
    old_levels = {name: logging.getLogger(name).level for name in levels}
    logging.getLogger(ALL).addHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        logging.getLogger(ALL).removeHandler(handler)
        for name, number in old_levels.items():
            logging.getLogger(name).setLevel(number)


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`, which a progress bar replaces to print above itself."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(one_line(self.format(record)), file=sys.stderr)
        except Exception:
            self.handleError(record)
