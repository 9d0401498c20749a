"""OpenEnv's WebSocket: what its client sends and gets, who may connect, and a client that leaves."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.adapters.verdicts import Verdicts
from regrade.policy_training.serving.reward_server import RewardServer
from regrade.policy_training.serving.settings import ServerSettings
from regrade.rewards import tests as of_tests
from tests.policy_training.serving.conftest import BREAK, FIX, HTTP, serving, slow_fix
from tests.policy_training.serving.test_score import TOKEN, until


@contextlib.contextmanager
def session(server: RewardServer, **options: Any) -> Iterator[ClientConnection]:
    address = server.url.replace("http", "ws", 1) + "/ws"
    with connect(address, compression=None, proxy=None, max_size=None, **options) as connection:
        yield connection


def ask(connection: ClientConnection, content: Any) -> dict[str, Any]:
    connection.send(content if isinstance(content, str | bytes) else json.dumps(content))
    return dict(json.loads(connection.recv(timeout=60)))


def test_a_session_plays_one_episode_after_another(server: RewardServer) -> None:
    with session(server) as connection:
        begun = ask(connection, {"type": "reset", "data": {"task_id": "shop"}})
        assert (begun["type"], begun["data"]["reward"], begun["data"]["done"]) == ("observation", None, False)
        assert "Mend total." in begun["data"]["observation"]["messages"][-1]["content"]
        ended = ask(connection, {"type": "step", "data": {"patch": FIX}})["data"]
        assert (ended["reward"], ended["done"]) == (1.0, True)
        assert ended["observation"]["metadata"]["components"]["fixed"] == 1.0
        state = ask(connection, {"type": "state"})
        assert (state["type"], state["data"]["step_count"], state["data"]["task_id"]) == ("state", 1, "shop")
        assert ask(connection, {"type": "reset"})["data"]["observation"]["task_id"] == "shop"
        assert ask(connection, {"type": "step", "data": {"patch": BREAK}})["data"]["reward"] == 0.0
        connection.send('{"type": "close"}')
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=20)


@pytest.mark.parametrize(
    ("message", "code", "why"),
    [
        ("{", "INVALID_JSON", "no JSON"),
        ("[" * 100_000, "INVALID_JSON", "no JSON"),
        (b"\xff", "INVALID_JSON", "no JSON"),
        ("7", "UNKNOWN_TYPE", ""),
        ({"type": "mcp", "data": {}}, "UNKNOWN_TYPE", "reset"),
        ({"data": {}}, "UNKNOWN_TYPE", "type"),
        ({"type": "step", "data": {"patch": FIX, "text": ""}}, "VALIDATION_ERROR", "exactly one of patch and text"),
        ({"type": "step", "data": {"code": "1"}}, "VALIDATION_ERROR", "code"),
        ({"type": "reset", "data": {"seed": -1}}, "VALIDATION_ERROR", "seed"),
        ({"type": "reset", "data": {"task_id": "shoe"}}, "EXECUTION_ERROR", "no task 'shoe'"),
        ({"type": "step", "data": {"patch": FIX}}, "SESSION_ERROR", "send `reset` before `step`"),
        ({"type": "state"}, "SESSION_ERROR", "send `reset` before `state`"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_message_is_answered_and_the_session_goes_on(
    server: RewardServer, message: Any, code: str, why: str
) -> None:
    with session(server) as connection:
        error = ask(connection, message)
        assert (error["type"], error["data"]["code"]) == ("error", code), error
        assert why in error["data"]["message"]
        assert "\n" not in error["data"]["message"]
        assert ask(connection, {"type": "reset"})["type"] == "observation"


def test_a_message_beyond_the_limit_ends_its_session_alone(server: RewardServer) -> None:
    with session(server) as other, session(server) as connection:
        with pytest.raises(ConnectionClosed) as closed:
            ask(connection, "x" * (1 << 21))
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        assert ask(other, {"type": "reset"})["type"] == "observation"


def test_a_client_that_leaves_and_comes_back_joins_its_running_answer(server: RewardServer) -> None:
    before, step = server.service.queue.counts, {"type": "step", "data": {"patch": slow_fix(40, 1.5)}}
    reset = {"type": "reset", "data": {"task_id": "shop", "episode_id": "mine"}}
    with session(server) as connection:
        ask(connection, reset)
        connection.send(json.dumps(step))
        until(lambda: server.service.queue.counts.started > before.started)
    until(lambda: not server.service.replies)
    with session(server) as connection:
        ask(connection, reset)
        assert ask(connection, step)["data"]["reward"] == 1.0
    after = server.service.queue.counts
    assert (after.started - before.started, after.joined - before.joined) == (1, 1)


@pytest.mark.parametrize("origin", ["http://attacker.example", "null"])
def test_a_page_of_another_host_gets_no_session(server: RewardServer, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused, session(server, origin=origin):
        pass
    assert refused.value.response.status_code == 403
    with session(server, origin=server.url) as connection:  # such as /docs
        assert ask(connection, {"type": "reset"})["type"] == "observation"


def test_a_session_needs_the_token_and_a_stopping_server_sends_the_verdict_first(task: Task, scorer: Scorer) -> None:
    settings = ServerSettings(port=0, token=TOKEN, connections=2, stop_seconds=20)
    verdicts = Verdicts([task], scorer, of_tests)
    replies: list[dict[str, Any]] = []
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with serving(verdicts, settings, running=1) as server, contextlib.ExitStack() as open_sessions:
        with pytest.raises(InvalidStatus) as refused, session(server):
            pass
        assert refused.value.response.status_code == 401
        first, _ = (open_sessions.enter_context(session(server, additional_headers=headers)) for _ in range(2))
        with session(server, additional_headers=headers) as third:
            assert json.loads(third.recv(timeout=20))["data"]["code"] == "CAPACITY_REACHED"
        ask(first, {"type": "reset"})
        step = {"type": "step", "data": {"patch": slow_fix(41, 1.0)}}
        asking = threading.Thread(target=lambda: replies.append(ask(first, step)))
        asking.start()
        until(lambda: server.service.queue.counts.running == 1)
        server.stop()
        asking.join(30)
    assert replies[0]["data"]["reward"] == 1.0


def test_the_routes_that_openenv_validates_a_server_by(server: RewardServer) -> None:
    assert set(HTTP.get(f"{server.url}/metadata").json()) == {"name", "description"}
    answer = HTTP.post(f"{server.url}/mcp", json={}).json()
    assert (answer["jsonrpc"], answer["error"]["code"]) == ("2.0", -32601)
