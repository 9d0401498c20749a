"""What the programs share: answers, and a scorer that cannot score one of them. It imports no package of a trainer."""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.adapters import configured, verdicts
from regrade.rewards.evidence import EvidenceSet


def edit(old: str, new: str) -> str:
    return f"library.py\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"


FIX = edit("    return items[2]", "    return items[1]")
BREAK = edit("    return number * 2", "    return number * 3")
MALFORMED = "I do not know."
LOST = edit("    return items[2]", "    return items[1]  # the daemon dies here")
DAEMON = "the daemon died"

_gather = Scorer.gather


def _gather_but(self: Scorer, jobs: Sequence[Any], needs: Any, **more: Any) -> list[EvidenceSet]:
    """The real evidence, except of the answer at which the infrastructure fails."""
    found = _gather(self, jobs, needs, **more)
    nothing = EvidenceSet({}, dict.fromkeys(needs, DAEMON))
    return [
        nothing if "the daemon dies here" in patch.text else evidence
        for (_, patch), evidence in zip(jobs, found, strict=True)
    ]


Scorer.gather = _gather_but  # type: ignore[method-assign]
verdicts.FIRST_PAUSE = 0.001


def refused(call: Callable[[], Any]) -> str:
    """The name of the exception with which a call ends; it, its cause or a member of its group names the failure."""
    try:
        result = call()
    except Exception as error:
        if DAEMON not in "".join(traceback.format_exception(error)):  # with causes and the members of groups
            raise
        return type(error).__name__
    raise AssertionError(f"an unscored answer ends in {result!r}")


def values() -> dict[str, float | None]:
    """The values of the answers by the core, which every adapter must pass on."""
    answers = {"fix": FIX, "break": BREAK, "malformed": MALFORMED}
    judged = configured.configured_verdicts().of([verdicts.Answer("second", text=text) for text in answers.values()])
    found = {name: verdict.value for name, verdict in zip(answers, judged, strict=True)}
    assert found["fix"] is not None, judged[0].cause
    assert found["fix"] > 0.9, judged[0].explanation
    assert found["break"] is not None, judged[1].cause
    assert found["break"] < 0.5, judged[1].explanation
    return found


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def report(package: str, ran: str, unscored: str) -> None:
    """The program's last line: what the table shows."""
    print(json.dumps({"version": version(package), "ran": ran, "unscored": unscored}), flush=True)
