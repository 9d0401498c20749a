"""`/score` over HTTP: verdicts in order, streams, what is refused, and equal answers that are scored once."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from typing import Any

import httpx2
import pytest
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.adapters.verdicts import Verdicts
from regrade.policy_training.serving.application import create_app
from regrade.policy_training.serving.reward_server import RewardServer
from regrade.policy_training.serving.service import RewardService
from regrade.policy_training.serving.settings import ServerSettings
from regrade.rewards import tests as of_tests
from tests.policy_training.serving.conftest import BREAK, FIX, HTTP, serving, slow_fix

TOKEN = "0123456789abcdef-token"


def answer(patch: str, task_id: str = "shop") -> dict[str, Any]:
    return {"task_id": task_id, "patch": patch}


def post(server: RewardServer, *patches: str, **options: Any) -> httpx2.Response:
    body = {"answers": [answer(patch) for patch in patches], **options}
    return HTTP.post(f"{server.url}/score", json=body, timeout=60)


def verdicts_of(response: httpx2.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return list(response.json()["verdicts"])


def test_verdicts_come_in_order_and_equal_answers_run_once(server: RewardServer) -> None:
    before = server.service.queue.counts.started
    verdicts = verdicts_of(post(server, BREAK, FIX, "", BREAK, FIX))
    assert [each["index"] for each in verdicts] == [0, 1, 2, 3, 4]
    assert [each["value"] for each in verdicts] == [0.0, 1.0, 0.0, 0.0, 1.0]
    assert [each["flags"] for each in verdicts][:3] == [["broke"], ["resolved"], ["no_op"]]
    assert verdicts[1]["components"]["fixed"] == 1.0
    assert "fixes 1 of 1" in verdicts[1]["explanation"]
    assert (verdicts[1]["digest"] == verdicts[4]["digest"]) is True
    assert len({each["digest"] for each in verdicts}) == 3
    assert server.service.queue.counts.started - before == 3
    text = "shop.py\n<<<<<<< SEARCH\n    return sum(prices) + 1\n=======\n    return sum(prices)\n>>>>>>> REPLACE\n"
    response = HTTP.post(f"{server.url}/score", json={"answers": [{"task_id": "shop", "text": text}]}, timeout=60)
    assert verdicts_of(response)[0]["value"] == 1.0


def test_a_stream_has_each_verdict_as_soon_as_it_is_known_and_says_where_it_ends(server: RewardServer) -> None:
    body = {"answers": [answer(slow_fix(1, 1.0)), answer(FIX), answer(FIX)]}
    with HTTP.stream(
        "POST", f"{server.url}/score", json=body, headers={"Accept": "application/x-ndjson"}, timeout=60
    ) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in response.iter_lines() if line.strip()]
    assert lines[-1] == {"end": 3}
    assert sorted(line["index"] for line in lines[:-1]) == [0, 1, 2]
    assert lines[2]["index"] == 0  # the slow one is the last
    assert [line["value"] for line in lines[:-1]] == [1.0, 1.0, 1.0]


def test_an_answer_beyond_the_deadline_has_no_value_and_the_next_post_joins_it(server: RewardServer) -> None:
    before = server.service.queue.counts
    patch = slow_fix(2, 1.5)
    (verdict,) = verdicts_of(post(server, patch, deadline=0.3))
    assert (verdict["status"], verdict["value"]) == ("unfinished", None)
    assert "post the same again" in verdict["cause"]
    (verdict,) = verdicts_of(post(server, patch))
    assert (verdict["status"], verdict["value"]) == ("scored", 1.0)
    after = server.service.queue.counts
    assert (after.started - before.started, after.joined - before.joined) == (1, 1)


def test_a_client_that_leaves_takes_its_waiting_answers_with_it(server: RewardServer) -> None:
    for place, headers in enumerate(({}, {"Accept": "application/x-ndjson"})):
        before = server.service.queue.counts
        patches = [slow_fix(number + 3 * place, 1.5) for number in (3, 4, 5)]  # two run, one waits
        body = {"answers": [answer(patch) for patch in patches]}
        with pytest.raises(httpx2.TimeoutException):
            HTTP.post(f"{server.url}/score", json=body, timeout=0.3, headers=headers)
        until(lambda: server.service.queue.counts.waiting + server.service.queue.counts.running == 0)
        after = server.service.queue.counts
        assert (after.started - before.started, after.dropped - before.dropped) == (2, 1)


def until(condition: Any, seconds: float = 20.0) -> None:
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


def test_among_a_thousand_connections_each_request_gets_its_own_verdict(server: RewardServer) -> None:
    patches = [FIX, BREAK, "", slow_fix(9, 0.3)]
    host, port = server.url.removeprefix("http://").split(":")

    async def value(number: int) -> float:
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps({"answers": [answer(patches[number % 4])]}).encode()
        head = f"Host: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
        writer.write(f"POST /score HTTP/1.1\r\n{head}\r\n\r\n".encode() + body)
        response = await reader.read()
        writer.close()
        return float(json.loads(response.partition(b"\r\n\r\n")[2])["verdicts"][0]["value"])

    async def all_of_them() -> list[float]:
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(900)]
        values = list(await asyncio.gather(*map(value, range(100))))
        for _, writer in silent:
            writer.close()
        return values

    before = server.service.queue.counts.started
    assert asyncio.run(all_of_them()) == [1.0, 0.0, 0.0, 1.0] * 25
    assert server.service.queue.counts.started - before <= 4


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ({"answers": [answer(FIX), answer(FIX, "shoe")]}, 404, "answer 1: the server has no task 'shoe'"),
        ({"answers": [answer(FIX, "\ud800")]}, 422, "task_id"),
        ({"answers": []}, 422, "answers"),
        ({"answers": [answer(FIX)] * 21}, 413, "send at most 20"),
        ({"answers": [{"task_id": "shop"}]}, 422, "exactly one of patch, text and episode"),
        ({"answers": [{"task_id": "shop", "patch": "", "text": ""}]}, 422, "exactly one of patch, text and episode"),
        ({"answers": [{"task_id": "shop", "episode": {"steps": 3}}]}, 422, "episode"),
        ({"answers": [answer(FIX)], "deadline": -1}, 422, "deadline"),
        ({"answers": [answer(FIX)], "deadline": float("nan")}, 422, "deadline"),
        ({"answer": []}, 422, "answers"),
        ([], 422, "body"),
    ],
    ids=str,
)
def test_a_wrong_request_is_refused_in_one_line(server: RewardServer, body: Any, status: int, why: str) -> None:
    before = server.service.queue.counts.started
    for accept in ("application/json", "application/x-ndjson"):
        headers = {"Content-Type": "application/json", "Accept": accept}
        response = HTTP.post(f"{server.url}/score", content=json.dumps(body), headers=headers)
        assert response.status_code == status, response.text
        assert why in response.json()["detail"]
        assert "\n" not in response.json()["detail"]
    assert server.service.queue.counts.started == before


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b'{"answers": "\xff"}', b"\x00" * 100], ids=len)
def test_what_is_no_json_is_refused(server: RewardServer, content: bytes) -> None:
    response = HTTP.post(f"{server.url}/score", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["detail"]


@pytest.mark.parametrize(
    ("patch", "flag"),
    [("x" * 500_000, ""), ("--- a/shop.py\n+++ b/shop.py\n@@ nonsense", ""), ("\ud800", "malformed"), ("\udc80", "")],
    ids=["no diff", "no hunk", "surrogate", "byte"],
)
def test_a_patch_that_is_none_scores_low_as_the_policy_wrote_it(server: RewardServer, patch: str, flag: str) -> None:
    content = json.dumps({"answers": [answer(patch)]})
    response = HTTP.post(
        f"{server.url}/score", content=content, headers={"Content-Type": "application/json"}, timeout=60
    )
    (verdict,) = verdicts_of(response)
    assert (verdict["status"], verdict["value"]) == ("scored", 0.0), verdict
    assert not flag or flag in verdict["flags"]


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(server: RewardServer) -> None:
    refused = post(server, "x" * (1 << 20))
    assert refused.status_code == 413
    assert "larger than" in refused.json()["detail"]
    assert "raise the limit" in refused.json()["detail"]

    def chunks() -> Any:
        yield b'{"answers": [{"task_id": "shop", "patch": "'
        for _ in range(40):
            yield b"x" * (1 << 15)

    response = HTTP.post(f"{server.url}/score", content=chunks(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413, response.text
    request = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n"
    assert b" 413 " in raw(server, request).splitlines()[0]


def raw(server: RewardServer, request: bytes) -> bytes:
    """The response to bytes, which may be half a request."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_half_a_request_ends_and_holds_up_nobody(server: RewardServer) -> None:
    head = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    responses: list[bytes] = []
    halves = [threading.Thread(target=lambda: responses.append(raw(server, head + b'{"ans'))) for _ in range(20)]
    for half in halves:
        half.start()
    assert verdicts_of(post(server, FIX))[0]["value"] == 1.0
    for half in halves:
        half.join()
    assert {response.split(b"\r\n")[0] for response in responses} == {b"HTTP/1.1 408 Request Timeout"}
    assert b"did not arrive within 0.5 s" in responses[0]
    for nonsense in (
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"GET\r\n\r\n",
        b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    ):
        assert raw(server, nonsense).split(b"\r\n")[0] in (b"HTTP/1.1 400 Bad Request", b"")


def test_a_page_of_another_host_cannot_use_a_server_without_a_token(server: RewardServer) -> None:
    body = {"answers": [answer(FIX)]}
    response = HTTP.post(f"{server.url}/score", json=body, headers={"Host": "attacker.example"})
    assert response.status_code == 400
    response = HTTP.post(f"{server.url}/score", content=json.dumps(body), headers={"Content-Type": "text/plain"})
    assert response.status_code == 422  # what a page may send without asking


def test_health_metrics_and_tasks(server: RewardServer, scorer: Scorer) -> None:
    post(server, FIX)
    health = HTTP.get(f"{server.url}/health").json()
    assert (health["status"], health["reward"], health["tasks"]) == ("healthy", "tests", 1)
    assert HTTP.get(f"{server.url}/tasks").json() == ["shop"]
    assert HTTP.get(f"{server.url}/docs").status_code == 200
    HTTP.get(f"{server.url}/no-such-page/{time.time()}")
    text = HTTP.get(f"{server.url}/metrics").text
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["regrade_scorer_executions_total",] == scorer.stats.executions
    assert samples["regrade_jobs_started_total",] >= 1
    assert samples["regrade_verdicts_total", "scored"] >= 1
    assert samples["regrade_requests_total", "/score", "200"] >= 1
    assert samples["regrade_requests_total", "other", "404"] >= 1
    assert not any("no-such-page" in label for name in samples for label in name)


def test_the_description_of_the_api_is_valid_and_complete(server: RewardServer) -> None:
    description = HTTP.get(f"{server.url}/openapi.json").json()
    validate(description)
    assert {"/score", "/verify", "/openrlhf", "/slime", "/reset", "/step", "/health", "/metrics"} <= set(
        description["paths"]
    )
    score = description["paths"]["/score"]["post"]
    assert {"200", "401", "404", "408", "413", "422", "503"} <= set(score["responses"])
    names = {name for each in description["paths"].values() for method in each.values() for name in method["responses"]}
    assert "200" in names


@pytest.fixture(scope="module")
def closed_server(task: Task, scorer: Scorer) -> Any:
    """A server with a token and a queue for one answer."""
    settings = ServerSettings(port=0, token=TOKEN, queue=1)
    with serving(Verdicts([task], scorer, of_tests), settings, running=1) as server:
        yield server


@pytest.mark.parametrize("header", [None, "", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", "Bearer é"])
def test_a_wrong_token_is_refused_before_the_body(closed_server: RewardServer, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    response = HTTP.post(f"{closed_server.url}/score", content=b"{", headers=headers)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert HTTP.get(f"{closed_server.url}/metrics", headers=headers).status_code == 401
    assert HTTP.get(f"{closed_server.url}/tasks", headers=headers).status_code == 401
    assert HTTP.get(f"{closed_server.url}/health", headers=headers).status_code == 200


def test_a_full_queue_answers_503_with_a_pause(closed_server: RewardServer) -> None:
    headers = {"Authorization": f"bearer {TOKEN}"}

    def send(patch: str) -> httpx2.Response:
        body = {"answers": [answer(patch)]}
        return HTTP.post(f"{closed_server.url}/score", json=body, headers=headers, timeout=60)

    sent = [threading.Thread(target=send, args=[slow_fix(number, 1.0)]) for number in (20, 21)]
    for number, thread in enumerate(sent):
        thread.start()
        until(lambda number=number: sum(_load(closed_server)) == number + 1)
    response = send(FIX)
    assert (response.status_code, int(response.headers["retry-after"]) >= 1) == (503, True)
    assert "the queue holds 1 of at most 1 jobs" in response.json()["detail"]
    for thread in sent:
        thread.join()
    assert verdicts_of(send(FIX))[0]["value"] == 1.0


def _load(server: RewardServer) -> tuple[int, int]:
    counts = server.service.queue.counts
    return counts.running, counts.waiting


def test_the_application_has_no_state_of_its_own(task: Task, scorer: Scorer) -> None:
    """Two applications in one process do not share metrics: nothing is global."""
    services = [RewardService(Verdicts([task], scorer, of_tests), ServerSettings(), running=1) for _ in range(2)]
    for service in services:
        create_app(service)
    services[0].metrics.verdicts.labels("scored").inc()
    assert b'regrade_verdicts_total{kind="scored"} 1.0' in services[0].metrics.text()
    assert b'regrade_verdicts_total{kind="scored"} 0.0' in services[1].metrics.text()


@pytest.mark.parametrize("sent", [b"", b"POST /score HTTP/1.1\r\nHost: localhost\r\nX-"])
def test_a_connection_without_a_whole_header_is_closed(task: Task, scorer: Scorer, sent: bytes) -> None:
    settings = ServerSettings(port=0, header_seconds=0.3)
    with serving(Verdicts([task], scorer, of_tests), settings) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=30) as client:
            client.sendall(sent)
            assert client.recv(1) == b"", "the server waits forever"
