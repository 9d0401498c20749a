"""Policies behind a real HTTP server: what is asked, what comes back, and what goes wrong on the way."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Sampling, trials
from regrade.datasets.tasks import Task
from regrade.policy_training.policies import endpoint_requests
from regrade.policy_training.policies.endpoint_requests import Endpoint
from regrade.policy_training.policies.endpoints import EndpointPolicy
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from tests.endpoint_server import serving

SWEEP = [Sampling(0.0, 1), Sampling(0.7, 3)]
FIX = "library.py\n<<<<<<< SEARCH\n    return items[2]\n=======\n    return items[1]\n>>>>>>> REPLACE"


def asked(endpoint: Endpoint, tasks: list[Task], samplings: list[Sampling] | None = None) -> list[Rollout]:
    return list(EndpointPolicy(endpoint, "model").propose(tasks, samplings or [Sampling(0.0, 1)], seed=3))


def quick(url: str, **more: object) -> Endpoint:
    return Endpoint(base_url=url, model="org/model", pause=0.01, **more)  # type: ignore[arg-type]


def test_edits_of_a_chat_become_the_reference(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    with serving(lambda _: FIX) as server:
        rollouts = asked(quick(server.url, key_variable="SOME_KEY", body={"top_p": 0.9}), tasks[:1], SWEEP)
    assert [rollout.patch for rollout in rollouts] == [tasks[0].reference] * 4
    assert Counter((r.temperature, r.sample) for r in rollouts) == Counter(
        {(0.0, 0): 1, **{(0.7, n): 1 for n in range(3)}}
    )
    assert all(
        r.well_formed and r.tokens == len(FIX.split()) and r.completion == FIX and r.seconds > 0 for r in rollouts
    )
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
    assert {request["authorization"] for request in server.requests} == {"Bearer secret"}
    assert {(r["model"], r["top_p"], r["max_tokens"]) for r in server.requests} == {("org/model", 0.9, 4096)}
    assert sorted((r["temperature"], r["seed"]) for r in server.requests) == [
        (0.0, 3000),
        (0.7, 3000),
        (0.7, 3001),
        (0.7, 3002),
    ]
    said = server.requests[0]["messages"][1]["content"]
    assert "return items[2]" in said
    assert "test_library.py::test_second" in said
    assert "return items[1]" not in said, "the reference is not shown"


def test_undecodable_bytes_of_a_file_reach_the_server_as_question_marks(tasks: list[Task]) -> None:
    odd = replace(tasks[0], instruction="Mend caf\udce9.")
    with serving(lambda _: FIX) as server:
        (rollout,) = asked(quick(server.url), [odd])
    assert rollout.patch == tasks[0].reference
    assert "Mend caf?." in server.requests[0]["messages"][1]["content"]


def test_the_short_format_is_asked_word_for_word_as_a_local_model_is(tasks: list[Task]) -> None:
    answers = {prompt_of(task).text: prompt_of(task).reference_answer() for task in tasks}
    with serving(lambda request: answers[request["prompt"]]) as server:
        rollouts = asked(quick(server.url, api="completions"), [task.without_reference() for task in tasks])
    assert {r.task_id: r.patch for r in rollouts} == {task.id: task.reference for task in tasks}
    assert {(request["path"], request["max_tokens"]) for request in server.requests} == {("/v1/completions", 40)}


def test_several_requests_are_under_way_at_a_time_and_no_more_than_that(tasks: list[Task]) -> None:
    with serving(lambda _: FIX, seconds=0.05) as server:
        asked(quick(server.url, at_a_time=3), tasks, [Sampling(1.0, 6)])
    assert server.most_at_a_time == 3
    assert len(server.requests) == 12


def test_a_moment_of_trouble_is_waited_out(tasks: list[Task]) -> None:
    troubles = iter(
        [(503, {"error": {"message": "loading"}}), None, (429, {}, {"Retry-After": "0.3"}), (200, b"<html>")]
    )
    began = time.monotonic()
    with serving(lambda _: next(troubles, FIX)) as server:
        (rollout,) = asked(quick(server.url), tasks[:1])
    assert rollout.patch == tasks[0].reference
    assert not rollout.lost
    assert len(server.requests) == 5
    assert time.monotonic() - began > 0.3, "the server said when to ask again"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((500, {"error": "overloaded"}), "500 overloaded"),
        (None, "disconnected"),
        ((200, {"choices": []}), "it has no choices"),
    ],
)
def test_an_endpoint_that_gives_no_answer_loses_the_attempt(tasks: list[Task], answer: object, words: str) -> None:
    with serving(lambda _: answer) as server:  # type: ignore[arg-type, return-value]
        (rollout,) = asked(quick(server.url, tries=3), tasks[:1])
    assert words in rollout.lost
    assert "the endpoint gave no answer" in rollout.lost
    assert len(server.requests) == 3


def test_retries_and_lost_attempts_are_logged_without_the_key(
    tasks: list[Task], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-hidden")
    with serving(lambda _: (500, {"error": "no room for sk-hidden\x1b[2J"})) as server:
        asked(quick(server.url, tries=2, key_variable="SOME_KEY"), tasks[:1])
    retry, lost = (record.getMessage() for record in caplog.records if "policies.endpoint" in record.name)
    assert retry.startswith("retry 1 of 1 in 0.")
    assert lost.startswith(f"attempt lost: task {tasks[0].id}, sample 0: ")
    for message in (retry, lost):
        assert "500 no room for ***\\x1b[2J" in message


def test_the_text_parts_of_an_answer_in_parts_are_its_text(tasks: list[Task]) -> None:
    """A model that thinks may answer in parts: its thoughts are no answer, and a part may end within a line."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "items[0]?"}]}
    parts = [thought, {"type": "text", "text": FIX[:40]}, {"type": "text", "text": FIX[40:]}]
    answer = {"choices": [{"message": {"role": "assistant", "content": parts}}], "usage": {"completion_tokens": 7}}
    with serving(lambda _: (200, answer)) as server:
        (rollout,) = asked(quick(server.url), tasks[:1])
    assert (rollout.completion, rollout.patch, rollout.lost) == (FIX, tasks[0].reference, "")


def test_an_answer_that_takes_too_long_is_lost(tasks: list[Task]) -> None:
    with serving(lambda _: FIX, seconds=1.0) as server:
        (rollout,) = asked(quick(server.url, tries=1, seconds=0.1), tasks[:1])
    assert "no answer within 0.1 s" in rollout.lost
    with serving(lambda _: FIX, drip=0.05) as server:  # each byte comes in time, the answer never
        (rollout,) = asked(quick(server.url, tries=1, seconds=0.5), tasks[:1])
    assert "no answer within 0.5 s" in rollout.lost


def test_an_answer_without_end_is_lost_before_it_fills_the_memory(
    tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_requests, "LARGEST_ANSWER", 1 << 20)
    huge = gzip.compress(bytes(64 << 20))
    for answer in [(200, b" " * (2 << 20)), (500, b"x" * (2 << 20)), (200, huge, {"Content-Encoding": "gzip"})]:
        with serving(lambda _, answer=answer: answer) as server:
            (rollout,) = asked(quick(server.url, tries=1), tasks[:1])
        assert "its answer has more than 1 MB" in rollout.lost


def test_a_dead_endpoint_is_not_asked_for_ever(tasks: list[Task]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    rollouts = asked(quick(url, tries=2, dead_after=3, at_a_time=1), tasks, [Sampling(1.0, 10)])
    assert len(rollouts) == 20
    assert all(rollout.lost for rollout in rollouts)
    assert sum("was not asked" in rollout.lost for rollout in rollouts) == 17


def test_what_the_user_got_wrong_stops_the_evaluation(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    for status, message, advice in [
        (401, "bad key", "key_variable=NAME"),
        (404, "no such model", "base URL"),
        (400, "no seed", "omit"),
    ]:
        answer = (status, {"error": {"message": message}})
        with (
            serving(lambda _, answer=answer: answer) as server,
            pytest.raises(UserError, match=f"{status} {message}.*{advice}"),
        ):
            asked(quick(server.url), tasks, [Sampling(1.0, 10)])
        assert len(server.requests) <= 8, "no more than were under way"
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(UserError, match=r"'NO_KEY'.*not set"):
        asked(Endpoint(base_url="http://localhost/v1", model="m", key_variable="NO_KEY"), tasks)
    monkeypatch.setenv("TORN_KEY", "secret\n")
    with pytest.raises(UserError, match=r"'TORN_KEY' holds no key") as torn:
        asked(Endpoint(base_url="http://localhost/v1", model="m", key_variable="TORN_KEY"), tasks)
    assert "secret" not in str(torn.value)
    for url, words in [("localhost:8000", "no URL"), ("https://me:pass@host/v1", "password")]:
        with pytest.raises(UserError, match=words) as caught:
            Endpoint(base_url=url, model="m")
        assert "pass@" not in str(caught.value)


def test_a_question_that_is_too_long_is_the_policys_own(tasks: list[Task]) -> None:
    said = {"error": {"message": "This model's maximum context length is 10 tokens", "code": "context_length_exceeded"}}
    with serving(lambda _: (400, said)) as server:
        (rollout,) = asked(quick(server.url), tasks[:1])
    assert (rollout.lost, rollout.well_formed, rollout.patch) == ("", False, Patch(""))
    assert len(server.requests) == 1


def test_parameters_can_be_left_out(tasks: list[Task]) -> None:
    with serving(lambda _: FIX) as server:
        asked(quick(server.url, omit=("seed", "temperature")), tasks[:1])
    assert not {"seed", "temperature"} & server.requests[0].keys()


def test_closing_the_iterator_ends_what_is_under_way_and_what_was_there_is_kept(tasks: list[Task]) -> None:
    slow = threading.Event()

    def answer(request: dict[str, object]) -> str:
        if request["seed"] != 0:
            slow.wait(20)
        return FIX

    kept: list[Rollout] = []
    with serving(answer) as server:
        policy = EndpointPolicy(quick(server.url, at_a_time=4), "model")
        wanted = trials(tasks[:1], [Sampling(1.0, 8)])
        rollouts = policy.attempt(wanted, 0, lambda _trial, rollout: kept.append(rollout))
        assert next(rollouts).sample == 0
        began = time.monotonic()
        rollouts.close()  # type: ignore[attr-defined]
        assert time.monotonic() - began < 5
        slow.set()
    assert [rollout.sample for rollout in kept] == [0]
    assert not [thread for thread in threading.enumerate() if thread.name == "attempts"]
