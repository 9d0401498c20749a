"""What goes wrong in a user's reward, said so that they find the line."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from regrade.datasets.errors import UserError


class RewardError(UserError):
    """A reward is declared, composed or written wrongly. Never turned into a score of 0."""


def blame(function: Callable[..., object], error: BaseException, records: Sequence[object]) -> str:
    """One line: which reward raised what, at which line, on which evidence."""
    code = getattr(function, "__code__", None)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if code and frame.filename == code.co_filename]
    where = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    seen = ", ".join(_short(record) for record in records)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (
        f"reward {function.__name__!r} raised {said}{where}, given {seen}: "
        "a reward must return a Score for any evidence (Score.unscored(why) where it does not apply)"
    )


def _short(record: object, limit: int = 200) -> str:
    text = repr(record)
    return text if len(text) <= limit else f"{text[:limit]}..."
