"""A reward that does not end is an error that names it, in whatever way it hangs, and in whatever thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass

import pytest

from regrade.rewards import EvidenceSet, Reward, RewardError, Score, reward
from regrade.rewards.algebra import Judgement
from regrade.rewards.errors import errors_of_attempt
from regrade.rewards.time_limit import SECONDS, VARIABLE, longest_seconds

OVER = [threading.Event()]
"""Of the present test; each has its own, which its threads wait for."""
PLACE = ContextVar("PLACE", default="nowhere")


@dataclass(frozen=True)
class Fact:
    number: int


FACT = EvidenceSet({Fact: Fact(1)})


def wait_for_good() -> None:
    OVER[0].wait()


@reward
def loops(fact: Fact) -> Score:
    over = OVER[0]
    while not over.is_set():
        pass
    return Score(1.0, why=str(fact))


@reward
def swallows(fact: Fact) -> Score:
    over = OVER[0]
    while not over.is_set():
        with suppress(BaseException):  # as a loop that tries again whatever happens
            time.sleep(0.01)
    return Score(1.0, why=str(fact))


@reward
def waits(fact: Fact) -> Score:
    wait_for_good()
    return Score(1.0, why=str(fact))


class Own(Reward):
    """A reward of a user's own class."""

    @property
    def name(self) -> str:
        return "own"

    @property
    def needs(self) -> frozenset[type]:
        return frozenset({Fact})

    def judge(self, evidence: EvidenceSet) -> Judgement:
        wait_for_good()
        return Judgement(1.0, str(evidence))


@reward
def quick(fact: Fact) -> Score:
    return Score(0.5, why=f"{fact.number} {PLACE.get()}")


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    OVER[0] = threading.Event()
    before = set(threading.enumerate())
    yield
    OVER[0].set()
    for thread in set(threading.enumerate()) - before:
        thread.join()


@pytest.mark.parametrize("hanging", [loops, swallows, waits, Own()], ids=lambda each: each.name)
def test_a_reward_that_does_not_end_is_named_with_its_line(hanging: Reward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0.2")
    said = rf"^reward '{hanging.name}' did not end within 0.2 s \(it is at test_time_limit.py:\d+\): .*set {VARIABLE}"
    with pytest.raises(RewardError, match=said) as caught:
        (0.5 * quick + 0.5 * hanging).evaluate(FACT) if hanging.name != "own" else hanging.evaluate(FACT)
    assert "\n" not in str(caught.value)
    with ThreadPoolExecutor(1) as pool, pytest.raises(RewardError, match=said):
        pool.submit(hanging.evaluate, FACT).result()
    left = [thread for thread in threading.enumerate() if thread.name == "regrade-limited-call"]
    assert len(left) == 2
    assert all(thread.daemon for thread in left), "they do not keep the process from ending"


def test_an_error_says_at_which_attempt_it_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0.1")
    with (
        pytest.raises(RewardError, match=r"^task 'a', attempt 2 of 'grpo': reward 'waits' did not end"),
        errors_of_attempt("task 'a', attempt 2 of 'grpo'"),
    ):
        waits.evaluate(FACT)


def test_a_reward_in_time_sees_the_context_of_its_caller() -> None:
    token = PLACE.set("here")
    try:
        assert quick.evaluate(FACT).parts[0].why == "1 here"
    finally:
        PLACE.reset(token)


def test_the_limit_can_be_set_and_a_wrong_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert longest_seconds() == SECONDS
    for text, seconds in {"600": 600.0, "inf": float("inf"), "1e300": 1e300}.items():
        monkeypatch.setenv(VARIABLE, text)
        assert longest_seconds() == seconds
        assert quick.evaluate(FACT).value == 0.5
    for text in ("0", "-1", "nan", "soon"):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(RewardError, match=rf"\${VARIABLE} is '{text}': give the seconds"):
            quick.evaluate(FACT)
