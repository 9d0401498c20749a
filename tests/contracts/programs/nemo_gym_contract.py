"""NeMo Gym: its resources server over HTTP, and its aggregation of the answers."""

from unittest.mock import MagicMock

from fastapi.testclient import TestClient
from nemo_gym.base_resources_server import BaseResourcesServerConfig
from nemo_gym.server_utils import ServerClient
from shared import BREAK, DAEMON, FIX, LOST, report, values

from regrade.policy_training.adapters.nemo_gym import RegradeResourcesServer

expected = values()
config = BaseResourcesServerConfig(host="127.0.0.1", port=0, entrypoint="", name="regrade")
server = RegradeResourcesServer(config=config, server_client=MagicMock(spec=ServerClient))


def request(answer: str) -> dict:
    part = {"type": "output_text", "text": answer, "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    response = {
        "id": "r", "created_at": 0.0, "model": "m", "object": "response", "output": [message],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip
    asked = {"input": [{"role": "user", "content": "Mend second()."}]}
    return {"responses_create_params": asked, "response": response, "task_id": "second", "_ng_task_index": 0}


with TestClient(server.setup_webserver()) as client:
    assert client.post("/seed_session", json={}).status_code == 200
    fixed, broke, lost = (client.post("/verify", json=request(text)).json() for text in (FIX, BREAK, LOST))
assert (fixed["reward"], fixed["mask_sample"], fixed["failure_kind"]) == (expected["fix"], False, None)
assert fixed["components"]["resolved"] == 1.0
assert fixed["response"]["output"][0]["content"][0]["text"] == FIX
assert broke["reward"] == expected["break"]
assert lost["mask_sample"] is True
assert lost["failure_kind"] == "verifier_error"
assert DAEMON in lost["failure_reason"]
report(
    "nemo-gym",
    "the package's resources server: `/seed_session` and `/verify` (over its HTTP application)",
    "`mask_sample`, `failure_kind` and `failure_reason` are set; the reward is 0, as the form needs a number",
)
