"""Episodes as ATIF 1.7, the Agent Trajectory Interchange Format, which Harbor and NeMo Gym read.

The first step is the instruction. Each further step is one action: the text, the call of the tool, and what it showed.
The task and the patch at the end, for which ATIF has no fields, are in the root's `extra` under SWE-bench's names.
What else Regrade records (the tree after each step, its tests, seconds) is in `extra.regrade`, so that it is read back.
"""

from __future__ import annotations

from typing import Any

from regrade.datasets.episode_json import StoredEpisode
from regrade.datasets.episodes import Episode

VERSION = "ATIF-v1.7"
UNKNOWN = "unknown"
IN_STEP = ("tool", "arguments", "observation", "action")
"""Fields of a stored step that ATIF has itself."""
IN_ROOT = ("task_id", "instruction", "steps")


def to_atif(episode: Episode, *, agent: str = "", model: str = "", version: str = "") -> dict[str, Any]:
    """An episode as the JSON object of a trajectory.

    Args:
        agent, model, version: of the agent; empty: unknown.
    """
    stored = StoredEpisode.of(episode).to_json()
    steps = [
        {"step_id": 1, "source": "user", "message": _text(stored["instruction"])},
        *(_step(number, step) for number, step in enumerate(stored["steps"], start=2)),
    ]
    return {
        "schema_version": VERSION,
        "agent": {
            "name": _text(agent) or UNKNOWN,
            "version": version or UNKNOWN,
            **({"model_name": _text(model)} if model else {}),
        },
        "steps": steps,
        "final_metrics": {
            **({"total_completion_tokens": episode.tokens} if episode.tokens else {}),
            "total_steps": len(steps),
        },
        "extra": {
            "instance_id": _text(stored["task_id"]),
            "model_patch": episode.patch.text,
            "regrade": {key: value for key, value in stored.items() if key not in IN_ROOT},
        },
    }


def _step(number: int, step: dict[str, Any]) -> dict[str, Any]:
    call = f"call_{number}"
    tool, observation = step["tool"], _text(step["observation"])
    value: dict[str, Any] = {"step_id": number, "source": "agent", "message": _text(step.get("action", ""))}
    if tool:
        arguments = step.get("arguments", {})
        value["tool_calls"] = [{"tool_call_id": call, "function_name": _text(tool), "arguments": arguments}]
    if observation:
        result = {"source_call_id": call, "content": observation} if tool else {"content": observation}
        value["observation"] = {"results": [result]}
    value["extra"] = {"regrade": {key: part for key, part in step.items() if key not in IN_STEP}}
    return value


def _text(text: str) -> str:
    """Without lone surrogates, which other readers of JSON refuse."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
