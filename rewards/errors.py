"""Errors in a user's reward, reported with the line."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from regrade.datasets.errors import UserError


class RewardError(UserError):
    """A mistake in the declaration, composition or code of a reward. It never becomes a score of 0."""


class OutOfBoundsError(RewardError):
    """The value of a Score is outside [0, 1]."""


def blame(function: Callable[..., object], error: BaseException, records: Sequence[object]) -> str:
    """The message for an exception of a reward function: the reward, the exception, the line and the evidence."""
    code = getattr(function, "__code__", None)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if code and frame.filename == code.co_filename]
    where = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    evidence = ", ".join(_short(record) for record in records)
    raised = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (
        f"reward {function.__name__!r} raised {raised}{where}, given {evidence}: "
        "a reward must return a Score for any evidence (Score.unscored(why) if it is not applicable)"
    )


def _short(record: object, limit: int = 200) -> str:
    text = repr(record)
    return text if len(text) <= limit else f"{text[:limit]}..."


@contextmanager
def errors_of_attempt(attempt: str) -> Iterator[None]:
    """Let an error of a reward say at which attempt it happened."""
    try:
        yield
    except RewardError as error:
        raise type(error)(f"{attempt}: {error}") from error


def described_attempt(policy: str, task_id: str, temperature: float, sample: int) -> str:
    """An attempt in words; samples are counted from 1."""
    return f"task {task_id!r}, attempt {sample + 1} of {policy!r} at temperature {temperature:g}"
