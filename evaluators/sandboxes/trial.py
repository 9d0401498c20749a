"""Does a sandbox of a program that only root can use work here? By a trial start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from regrade.evaluators.sandboxes.base import SandboxError
from regrade.evaluators.sandboxes.piped import PipedSession

TRIAL_SECONDS = 60.0
WORKS = b"works"
"""What the trial prints."""


def problem_of_trial(program: str, how_to_install: str, start: Callable[[], PipedSession], by_hand: str) -> str:
    """Why the sandbox does not work; empty: a trial printed `WORKS`.

    Args:
        program: what the sandbox calls.
        how_to_install: after "is not installed: ".
        start: starts the trial; raises SandboxError or OSError if that fails.
        by_hand: the command that a user may try.
    """
    if shutil.which(program) is None:
        return f"the program `{program}` is not installed: {how_to_install}"
    if os.geteuid() != 0:
        return "it needs root, for a user id for each candidate: as another user choose bubblewrap"
    try:
        session = start()
    except (SandboxError, OSError) as error:
        return str(error)
    try:
        if session.receive(TRIAL_SECONDS).strip() == WORKS:
            return ""
        reason = " ".join(session.errors.split()) or "no message"
        return f"a trial start failed ({reason[-300:]}): try `{by_hand}`"
    except TimeoutError:
        return f"a trial start did not answer within {TRIAL_SECONDS:g} s: try `{by_hand}`"
    finally:
        session.close()
