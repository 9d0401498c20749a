"""Events of OpenHands in the `history` of its `output.jsonl`, in its three forms.

Pairs of an action and an observation (2024); a list of events, of which an observation names its action as `cause`
(versions 0.x); events with a `kind`, joined by the id of a tool call (the SDK, versions 1.x).

The program writes its own actions among those of the model, such as a condensation of the history, and adds arguments
to the model's. No list of names decides what is whose, since each version has others: see `_is_of_the_model` and
`_Additions`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from regrade.datasets.episodes import Episode, EpisodeEnd, Step
from regrade.datasets.errors import UserError
from regrade.datasets.graded.documents import Document
from regrade.datasets.trajectories.records import (
    ForeignTrajectory,
    arguments_of,
    count_of,
    foreign_episode,
    foreign_step,
    mapping,
    objects,
    seconds_between,
    text_of,
    with_observation,
)

NAME = "openhands"
NOTHING = "null"
"""How its events write no action."""
OBSERVATIONS = ("ObservationEvent", "AgentErrorEvent", "UserRejectObservation")


def trajectories(document: Document) -> Iterator[ForeignTrajectory] | None:
    """The trajectories of a file, one a row with events; None if it has none.

    Raises:
        UserError: (while reading) a row's events have no known form.
    """
    if document.kind not in ("lines", "json"):
        return None
    first = document.first_row
    is_output = isinstance(first.get("instance_id"), str) and isinstance(first.get("history"), list)
    return _rows(document) if is_output else None


def _rows(document: Document) -> Iterator[ForeignTrajectory]:
    for number, row in enumerate(document.rows(), 1):
        history, instance = row.get("history"), row.get("instance_id")
        if not isinstance(instance, str) or not isinstance(history, list) or not history:
            continue
        yield ForeignTrajectory(
            instance=instance,
            episode=_episode(instance, row, history, f"{document.path}, row {number}"),
            source=NAME,
            model=str(mapping(mapping(row.get("metadata")).get("llm_config")).get("model") or ""),
            sample=_sample(row),
            is_patch_known=isinstance(_patch_of(row), str),
        )


def _sample(row: Mapping[str, Any]) -> int | None:
    attempt = row.get("attempt")
    return attempt - 1 if isinstance(attempt, int) and not isinstance(attempt, bool) and attempt > 0 else None


def _episode(instance: str, row: Mapping[str, Any], history: list[Any], where: str) -> Episode:
    events = _flat(history)
    if not any("action" in each or "kind" in each for each in events):
        raise UserError(f"{where}: its history has no events of OpenHands: give the output of an evaluation")
    steps, has_finished, said = _steps(events)
    usage = mapping(mapping(row.get("metrics")).get("accumulated_token_usage"))
    return foreign_episode(
        instance,
        text_of(row.get("instruction")) or said,
        steps,
        submission=_patch_of(row),
        end=EpisodeEnd.SUBMITTED if has_finished else EpisodeEnd.UNKNOWN,
        tokens=count_of(usage.get("completion_tokens")),
    )


def _patch_of(row: Mapping[str, Any]) -> object:
    """The patch at the end; a text if the row says it, which may be empty."""
    tested = mapping(row.get("test_result")).get("git_patch")
    return tested or row.get("git_patch") or tested


def _flat(history: Iterable[Any]) -> list[Mapping[str, Any]]:
    """The events; of a pair both, with the number of the pair as their link."""
    events: list[Mapping[str, Any]] = []
    for number, each in enumerate(history):
        if isinstance(each, list):
            link = f"pair {number}"
            events += [{"id": link, "cause": link, **event} for event in objects(each)]
        elif isinstance(each, dict):
            events.append(each)
    return events


def _steps(events: Sequence[Mapping[str, Any]]) -> tuple[list[Step], bool, str]:
    """The agent's steps; whether it finished by itself; the first message of the user."""
    answered = {link for event in events if _is_observation(event) for link in _links(event)}
    added = _Additions(event for event in events if _is_of_the_model(event, answered))
    steps: list[Step] = []
    begun: dict[object, tuple[int, object]] = {}  # link -> (index of the step, time)
    has_finished, said = False, ""
    for event in events:
        if _is_observation(event):
            link = next((each for each in _links(event) if each in begun), None)
            if link is not None:
                place, began = begun[link]
                steps[place] = with_observation(
                    steps[place], _shown(event), seconds_between(began, event.get("timestamp"))
                )
            continue
        if not _is_of_the_model(event, answered):
            said = said or _said(event)
            continue
        step = _step(event, added)
        has_finished = step.tool == "finish"
        for link in (event.get("tool_call_id"), event.get("id")):
            if isinstance(link, str | int):
                begun[link] = (len(steps), event.get("timestamp"))
        steps.append(step)
    return steps, has_finished, said


def _is_observation(event: Mapping[str, Any]) -> bool:
    return event.get("kind") in OBSERVATIONS or ("kind" not in event and "observation" in event)


def _links(event: Mapping[str, Any]) -> list[object]:
    found = (event.get("tool_call_id"), event.get("action_id"), event.get("cause"))
    return [each for each in found if isinstance(each, str | int)]


def _shown(event: Mapping[str, Any]) -> str:
    return text_of(event.get("content")) or text_of(event.get("observation")) or text_of(event.get("error"))


def _is_of_the_model(event: Mapping[str, Any], answered: set[object]) -> bool:
    """Is it an action of the model? It says something, has the model's call or its thought, or has an observation.

    What the program does by itself has a source of its own, or none of these: the system message, a condensation of the
    history, a request for one.
    """
    if "kind" in event:
        return bool(event["kind"] == "ActionEvent")
    action, arguments = event.get("action"), mapping(event.get("args"))
    if not isinstance(action, str) or action == NOTHING or event.get("source", "agent") != "agent":
        return False
    identity = event.get("id")
    is_answered = isinstance(identity, str | int) and identity in answered
    return action == "message" or "thought" in arguments or "tool_call_metadata" in event or is_answered


def _step(event: Mapping[str, Any], added: _Additions) -> Step:
    """The step of an action of the model."""
    if "kind" in event:
        called = arguments_of(mapping(event.get("tool_call")).get("arguments"))
        return foreign_step(_kind(event), called or added.without(event), text_of(event.get("thought")))
    arguments = mapping(event.get("args"))
    if event["action"] == "message":
        return foreign_step("", {}, text_of(arguments.get("content")) or text_of(event.get("message")))
    name = mapping(event.get("tool_call_metadata")).get("function_name")
    called = _called(event) or added.without(event)
    return foreign_step(name if isinstance(name, str) and name else _kind(event), called, _thought(event))


def _kind(event: Mapping[str, Any]) -> str:
    return str(event.get("tool_name") or "tool") if "kind" in event else str(event["action"])


def _thought(event: Mapping[str, Any]) -> str:
    return text_of(mapping(event.get("args")).get("thought"))


def _arguments(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """As the program wrote them, without the name of their class, which the event has, and the thought."""
    own = mapping(event.get("action") if "kind" in event else event.get("args"))
    return {str(name): value for name, value in own.items() if name not in ("kind", "thought")}


class _Additions:
    """The arguments that the program added to the model's, in records that lack the model's own call.

    A model chooses the arguments of each tool. So what has the same value in all actions that have it, of two tools or
    more, is the program's, such as a state of confirmation. A flag that is not set, and what is empty, was not chosen
    either.
    """

    def __init__(self, events: Iterable[Mapping[str, Any]]) -> None:
        kinds: dict[str, set[str]] = defaultdict(set)
        values: dict[str, set[str]] = defaultdict(set)
        for event in events:
            for name, value in _arguments(event).items():
                kinds[name].add(_kind(event))
                values[name].add(json.dumps(value, sort_keys=True, default=str))
        self._names = {name for name in kinds if len(kinds[name]) > 1 and len(values[name]) == 1}

    def without(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of an action without them."""
        return {
            name: value
            for name, value in _arguments(event).items()
            if name not in self._names and value is not False and value not in (None, "", [], {})
        }


def _called(event: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in the model's own call, where the record has its response."""
    metadata = mapping(event.get("tool_call_metadata"))
    for choice in objects(mapping(metadata.get("model_response")).get("choices")):
        for call in objects(mapping(choice.get("message")).get("tool_calls")):
            if call.get("id") == metadata.get("tool_call_id"):
                return arguments_of(mapping(call.get("function")).get("arguments"))
    return {}


def _said(event: Mapping[str, Any]) -> str:
    if event.get("source") != "user":
        return ""
    return text_of(mapping(event.get("llm_message")).get("content")) or text_of(
        mapping(event.get("args")).get("content")
    )
