"""NeMo Gym: its resources server over HTTP, and its aggregation of the answers."""

from unittest.mock import MagicMock

from fastapi.testclient import TestClient
from nemo_gym.base_resources_server import BaseResourcesServerConfig
from nemo_gym.reward_profile import compute_aggregate_metrics
from nemo_gym.server_utils import ServerClient
from shared import BREAK, DAEMON, FIX, LOST, report, values

from regrade.policy_training.adapters.nemo_gym import RegradeResourcesServer
from regrade.policy_training.adapters.nemo_gym_protocol import aggregate_metrics

expected = values()
config = BaseResourcesServerConfig(host="127.0.0.1", port=0, entrypoint="", name="regrade")
server = RegradeResourcesServer(config=config, server_client=MagicMock(spec=ServerClient))


def request(answer: str, rollout: int = 0) -> dict:
    part = {"type": "output_text", "text": answer, "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    response = {
        "id": "r", "created_at": 0.0, "model": "m", "object": "response", "output": [message],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip
    asked = {"input": [{"role": "user", "content": "Mend second()."}]}
    return {"responses_create_params": asked, "response": response, "task_id": "second",
            "_ng_task_index": 0, "_ng_rollout_index": rollout}  # fmt: skip


with TestClient(server.setup_webserver()) as client:
    assert client.post("/seed_session", json={}).status_code == 200
    fixed, broke, lost = (
        client.post("/verify", json=request(text, place)).json() for place, text in enumerate((FIX, BREAK, LOST))
    )
    rows = {"verify_responses": [fixed, broke, lost]}
    metrics = client.post("/aggregate_metrics", json=rows).json()
assert (fixed["reward"], fixed["mask_sample"], fixed["failure_kind"]) == (expected["fix"], False, None)
assert fixed["reward_components"]["resolved"] == fixed["resolved"] == 1.0
assert fixed["response"]["output"][0]["content"][0]["text"] == FIX
assert broke["reward"] == expected["break"]
assert lost["mask_sample"] is True
assert lost["failure_kind"] == "verifier_error"
assert DAEMON in lost["failure_reason"]

mean = (expected["fix"] + expected["break"]) / 2
assert abs(metrics["key_metrics"]["mean/reward"] - mean) < 1e-12, metrics
assert metrics["key_metrics"]["coverage/masked_rollouts"] == 1
of_version_0_4 = compute_aggregate_metrics([fixed, broke, lost])  # which knows no masks
assert abs(of_version_0_4.key_metrics["mean/reward"] - 2 / 3 * mean) < 1e-12

# What `regrade serve` answers without the package: the same numbers.
own = aggregate_metrics([fixed, broke, lost])
for name, value in metrics["agent_metrics"].items():
    if "_ng_" not in name:
        assert abs(own["agent_metrics"][name] - value) < 1e-9, (name, own["agent_metrics"][name], value)
(group,), (of_the_package,) = own["group_level_metrics"], metrics["group_level_metrics"]
assert {name: of_the_package[name] for name in group} == group, (group, of_the_package)
report(
    "nemo-gym",
    "the package's resources server over its HTTP application: `/seed_session`, `/verify`, `/aggregate_metrics`",
    "`mask_sample` is set and the mean is that of the two others; without it, version 0.4 would count the 0. The "
    "package has no advantages: the trainer must drop the group",
)
