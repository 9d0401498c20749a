"""The client: what it posts again, what it does not, and that nothing is lost when the server stops or is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.adapters.verdicts import Answer, Verdicts
from regrade.policy_training.serving.client import RewardClient, ServerError
from regrade.policy_training.serving.reward_server import RewardServer
from regrade.policy_training.serving.settings import ServerSettings
from regrade.rewards import tests as of_tests
from tests.policy_training.serving.conftest import BREAK, FIX, HTTP, SHOP, TESTS, serving, slow_fix


def answers(*patches: str) -> list[Answer]:
    return [Answer("shop", patch=patch) for patch in patches]


def test_verdicts_come_in_order_awaited_or_not(server: RewardServer) -> None:
    with RewardClient(server.url) as client:
        verdicts = client.score(answers(FIX, BREAK, FIX))
        assert [verdict.value for verdict in verdicts] == [1.0, 0.0, 1.0]
        assert verdicts[0].components["fixed"] == 1.0
        assert verdicts[1].flags == ("broke",)
        assert client.score([]) == []

    async def several() -> list[float | None]:
        client = RewardClient(server.url)
        both = await asyncio.gather(client.score_async(answers(BREAK)), client.score_async(answers(FIX)))
        await client.aclose()
        return [verdict.value for verdicts in both for verdict in verdicts]

    assert asyncio.run(several()) == [0.0, 1.0]


def test_what_runs_beyond_a_post_is_posted_again_and_runs_once(server: RewardServer) -> None:
    before = server.service.queue.counts.started
    with RewardClient(server.url, deadline=0.4) as client:
        verdicts = client.score(answers(slow_fix(30, 1.5), FIX))
    assert [verdict.value for verdict in verdicts] == [1.0, 1.0]
    assert server.service.queue.counts.started - before <= 2


def test_what_another_post_cannot_change_is_an_error_at_once(server: RewardServer) -> None:
    with RewardClient(server.url, tries=10**6) as client, pytest.raises(UserError, match="no task 'shoe'"):
        client.score([Answer("shoe", patch=FIX)])
    with RewardClient("http://127.0.0.1:9", tries=2) as client, pytest.raises(ServerError, match="after 2 posts"):
        client.score(answers(FIX))


def test_a_full_queue_delays_and_loses_nothing(task: Task, scorer: Scorer) -> None:
    settings = ServerSettings(port=0, queue=1, token="0123456789abcdef")
    patches = [slow_fix(number, 0.1) for number in range(40, 44)]
    values: dict[int, float | None] = {}
    with serving(Verdicts([task], scorer, of_tests), settings, running=1) as server:

        def send(number: int) -> None:
            with RewardClient(server.url, token="0123456789abcdef") as client:
                values[number] = client.score(answers(patches[number]))[0].value

        threads = [threading.Thread(target=send, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert server.service.queue.counts.refused > 0
        with RewardClient(server.url, token="another") as client, pytest.raises(UserError, match="token"):
            client.score(answers(FIX))
    assert values == dict.fromkeys(range(4), 1.0)


@contextmanager
def served(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`regrade serve` in a process of its own, and its URL. Its log is `log`, of all servers of the folder."""
    command = (sys.executable, "-c", "from regrade.cli.main import main; main()", "serve", "--tasks", "task.json")
    environment = {**os.environ, "REGRADE_CACHE": str(folder / "cache")}
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [*command, "--reward", "tests", "--port", "0", "--workers", "1", "--log", "json", *options],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "serving tests for 1 tasks on http://" in line, (folder / "log").read_text()
        yield process, line.split(" on ")[1].split(" ")[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop" / "tests").mkdir(parents=True)
    (tmp_path / "shop" / "shop.py").write_text(SHOP)
    (tmp_path / "shop" / "tests" / "test_shop.py").write_text(TESTS)
    task = {
        "id": "shop", "instruction": "Mend total.", "repository": "shop",
        "fail_to_pass": ["tests/test_shop.py::test_total"], "pass_to_pass": ["tests/test_shop.py::test_label"],
    }  # fmt: skip
    (tmp_path / "task.json").write_text(json.dumps(task))
    return tmp_path


def executions(url: str) -> int:
    text = httpx2.get(f"{url}/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("regrade_scorer_executions_total ")]
    return int(float(line.split()[1]))


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


@pytest.mark.slow
def test_a_stop_finishes_what_runs_and_a_kill_loses_nothing_that_was_stored(folder: Path) -> None:
    patches = [FIX, slow_fix(50, 2.0), BREAK]
    values: list[list[float | None]] = []

    def send(url: str) -> None:
        with RewardClient(url, tries=1) as client:
            try:
                values.append([verdict.value for verdict in client.score(answers(*patches))])
            except ServerError:
                values.append([])

    with served(folder) as (process, url):  # killed while the second runs
        sender = threading.Thread(target=send, args=[url])
        sender.start()
        ends_at = time.monotonic() + 60
        while not any(record.get("value") == 1.0 for record in records(folder)):
            assert time.monotonic() < ends_at
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        sender.join(60)
    with served(folder) as (process, url):  # stopped while the second runs, at the latest
        body = {"answers": [{"task_id": "shop", "patch": patch} for patch in patches[:2]]}
        responses: list[httpx2.Response] = []
        sender = threading.Thread(target=lambda: responses.append(HTTP.post(f"{url}/score", json=body)))
        sender.start()
        ends_at = time.monotonic() + 60
        while HTTP.get(f"{url}/health").json()["running"] == 0 and sender.is_alive():
            assert time.monotonic() < ends_at
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        sender.join(60)
        first, second = responses[0].json()["verdicts"]
        assert (first["value"], second["status"]) in ((1.0, "scored"), (1.0, "unfinished"))
    with served(folder) as (process, url):
        with RewardClient(url) as client:
            assert [verdict.value for verdict in client.score(answers(*patches))] == [1.0, 1.0, 0.0]
        assert executions(url) <= 2  # the first one is stored since before the kill
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    stops = [record for record in records(folder) if "stopping" in str(record["message"])]
    assert len(stops) == 2
    assert all({"asctime", "levelname", "message"} <= set(record) for record in records(folder))
