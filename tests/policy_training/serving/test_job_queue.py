"""The queue: equal jobs run once, places are kept, room is bounded, and a stop answers everyone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrade.policy_training.serving.job_queue import JobQueue, QueuedJob, UnavailableError


class Work:
    """Jobs that end when the test says so; the result of a job is how often it has run, or None to run it again."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.most_at_a_time = self.at_once = 0
        self.lost: set[str] = set()

    async def __call__(self, request: str) -> str | None:
        self.started.append(request)
        self.at_once += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_once)
        try:
            await self.gates.setdefault(request, asyncio.Event()).wait()
        finally:
            self.at_once -= 1
        if request.startswith("!"):
            raise ValueError(request)
        return None if request in self.lost else f"{request}:{self.started.count(request)}"

    def finish(self, *requests: str) -> None:
        for request in requests:
            self.gates.setdefault(request, asyncio.Event()).set()


Queue = JobQueue[str, str | None]


def queue_of(work: Work, **options: Any) -> Queue:
    return JobQueue(
        work,
        lambda result: result is not None,
        **{"running": 1, "capacity": 3, "linger": 0.05, "remembered": 2, **options},
    )


async def posted(queue: Queue, *keys: str) -> list[str | None]:
    """What a client that posts these gets."""
    with queue.joined([(key, key) for key in keys]) as jobs:
        return list(await asyncio.gather(*(asyncio.shield(job.result) for job in jobs)))


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 20))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@in_a_loop
async def test_equal_requests_share_a_job_while_it_waits_runs_and_is_remembered() -> None:
    work = Work()
    queue = queue_of(work)
    clients = [asyncio.create_task(posted(queue, *keys)) for keys in (("a", "b", "a"), ("b",), ("a",))]
    await turns()
    assert (queue.counts.running, queue.counts.waiting, work.started) == (1, 1, ["a"])
    work.finish("a", "b")
    assert await asyncio.gather(*clients) == [["a:1", "b:1", "a:1"], ["b:1"], ["a:1"]]
    assert await posted(queue, "b", "a") == ["b:1", "a:1"]
    assert work.started == ["a", "b"]
    assert (queue.counts.started, queue.counts.joined, queue.counts.remembered) == (2, 3, 2)


@in_a_loop
async def test_a_result_that_is_not_final_and_an_evicted_one_run_again() -> None:
    work = Work()
    queue = queue_of(work, running=3)
    work.lost.add("lost")
    work.finish("lost", "a", "b", "c")
    assert await posted(queue, "lost") == [None]
    work.lost.clear()
    assert await posted(queue, "lost") == ["lost:2"]
    assert await posted(queue, "a", "b", "c") == ["a:1", "b:1", "c:1"]
    assert await posted(queue, "b") == ["b:1"]  # of two that are remembered
    assert await posted(queue, "a") == ["a:2"]


@in_a_loop
async def test_a_full_queue_refuses_the_whole_request_and_names_a_pause() -> None:
    work = Work()
    queue = queue_of(work)
    client = asyncio.create_task(posted(queue, "a", "b", "c"))
    await turns()
    with pytest.raises(UnavailableError, match="holds 2 of at most 3 jobs, and has no room for 2 more") as refusal:
        await posted(queue, "d", "a", "e", "d")
    assert 1 <= refusal.value.retry_after <= 60
    assert (queue.counts.waiting, queue.counts.refused) == (2, 2)
    work.finish("a", "b", "c", "d")
    joined = asyncio.create_task(posted(queue, "a", "b", "c", "d"))  # only d needs room
    await asyncio.gather(client, joined)
    assert work.started == ["a", "b", "c", "d"]


@in_a_loop
async def test_a_waiting_job_is_dropped_some_time_after_its_last_client_left() -> None:
    work = Work()
    queue = queue_of(work)
    first, leaving, staying = (asyncio.create_task(posted(queue, key)) for key in ("a", "b", "c"))
    also_leaving = asyncio.create_task(posted(queue, "c"))
    await turns()
    leaving.cancel()
    also_leaving.cancel()
    await turns()
    assert queue.counts.waiting == 2  # it keeps its place
    await asyncio.sleep(0.15)
    assert (queue.counts.waiting, queue.counts.dropped) == (1, 1)
    work.finish("a", "c")
    await asyncio.gather(first, staying)
    assert work.started == ["a", "c"]


@in_a_loop
async def test_a_client_that_posts_again_in_time_finds_its_place_kept() -> None:
    work = Work()
    queue = queue_of(work)
    first, leaving, last = (asyncio.create_task(posted(queue, key)) for key in ("a", "b", "c"))
    await turns()
    leaving.cancel()
    await turns()
    again = asyncio.create_task(posted(queue, "b"))
    await asyncio.sleep(0.15)
    work.finish("a", "b", "c")
    assert await asyncio.gather(first, again, last) == [["a:1"], ["b:1"], ["c:1"]]
    assert work.started == ["a", "b", "c"]


@in_a_loop
async def test_a_running_job_ends_although_its_client_left_and_answers_the_next_post() -> None:
    work = Work()
    queue = queue_of(work)
    leaving = asyncio.create_task(posted(queue, "a"))
    await turns()
    leaving.cancel()
    await asyncio.sleep(0.15)
    again = asyncio.create_task(posted(queue, "a"))
    await turns()
    work.finish("a")
    assert await again == ["a:1"]


@in_a_loop
async def test_an_error_reaches_every_client_and_is_not_remembered() -> None:
    work = Work()
    queue = queue_of(work)
    work.finish("!a")
    answers = await asyncio.gather(posted(queue, "!a"), posted(queue, "!a"), return_exceptions=True)
    assert [str(error) for error in answers] == ["!a", "!a"]
    with pytest.raises(ValueError):
        await posted(queue, "!a")
    assert work.started == ["!a", "!a"]


@in_a_loop
async def test_a_stop_sends_waiting_jobs_back_and_lets_running_ones_end() -> None:
    work = Work()
    queue = queue_of(work)
    running, waiting = (asyncio.create_task(posted(queue, key)) for key in ("a", "b"))
    await turns()
    stopping = asyncio.create_task(queue.drain(10))
    await turns()
    with pytest.raises(UnavailableError, match="post it again"):
        await waiting
    with pytest.raises(UnavailableError, match="is stopping"):
        await posted(queue, "c")
    work.finish("a")
    await stopping
    assert await running == ["a:1"]


@in_a_loop
async def test_a_stop_does_not_wait_for_ever() -> None:
    queue = queue_of(Work())
    running = asyncio.create_task(posted(queue, "a"))
    await turns()
    await queue.drain(0.05)
    with pytest.raises(UnavailableError):
        await running


Action = tuple[str, str]
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["post", "leave", "finish", "lose"]), st.sampled_from("abcdef")), max_size=40
)


@given(ACTIONS, st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=60)
def test_whatever_clients_do_each_gets_an_answer_and_no_job_runs_twice_at_a_time(
    actions: list[Action], running: int, capacity: int
) -> None:
    async def play() -> None:
        work = Work()
        queue = queue_of(work, running=running, capacity=capacity, linger=0.0, remembered=3)
        clients: list[tuple[str, asyncio.Task[list[str | None]]]] = []
        left: set[asyncio.Task[list[str | None]]] = set()
        for action, key in actions:
            if action == "post":
                clients.append((key, asyncio.create_task(posted(queue, key))))
            elif action == "finish":
                work.finish(key)
            elif action == "lose":
                work.lost.symmetric_difference_update({key})
            else:
                for _, client in [each for each in clients if each[0] == key and not each[1].done()][:1]:
                    client.cancel()
                    left.add(client)
            await turns()
            assert queue.counts.running <= running
            assert queue.counts.waiting <= capacity
        work.finish(*"abcdef")
        answers = await asyncio.gather(*(client for _, client in clients), return_exceptions=True)
        for (key, client), answer in zip(clients, answers, strict=True):
            if client in left:
                assert isinstance(answer, asyncio.CancelledError)
            elif not isinstance(answer, UnavailableError):
                assert isinstance(answer, list)
                assert answer[0] is None or answer[0].startswith(f"{key}:")
        await turns()
        assert work.most_at_a_time <= running
        assert (queue.counts.running, queue.counts.waiting, queue._jobs) == (0, 0, {})

    asyncio.run(play())


def test_a_job_says_how_many_wait_for_it() -> None:
    async def play() -> None:
        queue = queue_of(Work())
        with queue.joined([("a", "a"), ("a", "a")]) as jobs:
            (job,) = set(jobs)
            assert isinstance(job, QueuedJob)
            assert job.waiting_requests == 2
        assert job.waiting_requests == 0
        await queue.drain(0)

    asyncio.run(play())
