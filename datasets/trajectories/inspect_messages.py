"""Messages of the samples of Inspect's logs (`.eval`, and its JSON form), read by the package `inspect-ai` itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.errors import UserError
from regrade.datasets.graded.documents import Document
from regrade.datasets.graded.inspect_logs import inspect_log_reader, is_inspect_log
from regrade.datasets.trajectories.chat_messages import chat_steps
from regrade.datasets.trajectories.records import ForeignTrajectory, count_of, foreign_episode

NAME = "inspect"
ENDS = {
    "message": EpisodeEnd.TURNS,
    "token": EpisodeEnd.TOKENS,
    "context": EpisodeEnd.TOKENS,
    "time": EpisodeEnd.SECONDS,
    "working": EpisodeEnd.SECONDS,
}
"""Kind of a limit that ended a sample -> the end of its episode."""


def trajectories(document: Document) -> Iterator[ForeignTrajectory] | None:
    """The samples of a log; None if the document is none.

    Raises:
        UserError: the package is not installed, or (while reading) the log is damaged.
    """
    return _samples(document) if is_inspect_log(document) else None


def _samples(document: Document) -> Iterator[ForeignTrajectory]:
    log = inspect_log_reader(document)
    try:
        model = str(log.read_eval_log(str(document.path), header_only=True).eval.model)
        for sample in log.read_eval_log_samples(str(document.path), all_samples_required=False):
            yield _trajectory(sample, model)
    except Exception as error:  # also those of its decompressors and parsers
        first = (str(error).splitlines() or [repr(error)])[0][:80]
        raise UserError(f"{document.path}: a log of Inspect that cannot be read ({first}): give a whole one") from error


def _trajectory(sample: Any, model: str) -> ForeignTrajectory:
    chat = chat_steps([_plain(message) for message in sample.messages])
    limit = str(getattr(sample.limit, "type", ""))
    tokens = sum(count_of(usage.output_tokens) for usage in (sample.model_usage or {}).values())
    return ForeignTrajectory(
        instance=str(sample.id),
        episode=foreign_episode(
            str(sample.id), chat.instruction, chat.steps, end=ENDS.get(limit, EpisodeEnd.UNKNOWN), tokens=tokens
        ),
        source=NAME,
        model=model,
        sample=int(sample.epoch) - 1,
        is_patch_known=False,
    )


def _plain(message: Any) -> dict[str, Any]:
    """A message in the form of OpenAI's."""
    calls = [
        {"id": call.id, "function": {"name": call.function, "arguments": call.arguments}}
        for call in getattr(message, "tool_calls", None) or ()
    ]
    shown = message.text
    error = getattr(message, "error", None)
    if error is not None:
        shown = f"{shown}\n{error.message}".strip()
    return {
        "role": message.role,
        "content": shown,
        "tool_calls": calls,
        "tool_call_id": getattr(message, "tool_call_id", None),
    }
