"""OpenEnv: its server over HTTP and WebSocket, and its client."""

import socket
import threading
import time

import requests
import uvicorn
from openenv.core.generic_client import GenericEnvClient
from shared import BREAK, DAEMON, FIX, LOST, MALFORMED, report, values

from regrade.policy_training.adapters.openenv import app

expected = values()
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
server = uvicorn.Server(uvicorn.Config(app(), host="127.0.0.1", port=port, log_level="warning"))
threading.Thread(target=server.run, daemon=True).start()
address = f"http://127.0.0.1:{port}"
for _ in range(600):
    try:
        if requests.get(f"{address}/health", timeout=5).ok:
            break
    except requests.ConnectionError:
        time.sleep(0.1)
assert "patch" in str(requests.get(f"{address}/schema", timeout=30).json()["action"])


def judged(answer: str) -> tuple[float | None, dict]:
    with GenericEnvClient(base_url=address).sync() as client:
        begun = client.reset(task_id="second")
        assert begun.observation["task_id"] == "second"
        assert "second()" in begun.observation["messages"][1]["content"]
        result = client.step({"text": answer})
        assert result.done
        return result.reward, result.observation["metadata"]


reward, metadata = judged(FIX)
assert reward == expected["fix"]
assert metadata["components"]["resolved"] == 1.0
assert judged(BREAK)[0] == expected["break"]
assert judged(MALFORMED)[0] == expected["malformed"]
reward, metadata = judged(LOST)
assert reward is None, reward
assert DAEMON in metadata["cause"]
server.should_exit = True
report(
    "openenv",
    "the package's server, `/health`, `/schema`, and its client over a WebSocket: reset and step",
    "the reward of the observation is None, with the cause in its metadata",
)
