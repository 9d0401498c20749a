"""`/score`: verdicts in order, streams, what is refused, and equal answers that are scored once."""

from __future__ import annotations

import json

import httpx2

from regrade.policy_training.serving.reward_server import RewardServer
from tests.policy_training.serving.conftest import BREAK, FIX


def test_verdicts_come_in_order_and_equal_answers_run_once(server: RewardServer) -> None:
    answers = [{"task_id": "shop", "patch": patch} for patch in (BREAK, FIX, "", BREAK, FIX)]
    before = server.service.queue.counts.started
    response = httpx2.post(f"{server.url}/score", json={"answers": answers}, timeout=60)
    assert response.status_code == 200, response.text
    verdicts = response.json()["verdicts"]
    assert [each["index"] for each in verdicts] == [0, 1, 2, 3, 4]
    values = [each["value"] for each in verdicts]
    assert (values[1], values[4]) == (1.0, 1.0)
    assert values[0] == values[3] < values[1]
    assert server.service.queue.counts.started - before == 3
    assert verdicts[1]["components"]["fixed"] == 1.0
    print(json.dumps(verdicts[:2], indent=1))
