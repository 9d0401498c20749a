"""A small real task, a scorer with real sandboxes, and one server for most tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.adapters.verdicts import Verdicts
from regrade.policy_training.serving.reward_server import RewardServer
from regrade.policy_training.serving.settings import ServerSettings
from regrade.rewards import tests as of_tests

HTTP = httpx2.Client(verify=False, timeout=60)  # one for all, as each reads the certificates of the system anew

SHOP = "def total(prices):\n    return sum(prices) + 1\n\n\ndef label(name):\n    return name.upper()\n"
TESTS = (
    "import shop\n\n\ndef test_total():\n    assert shop.total([1, 2]) == 3\n\n\n"
    "def test_label():\n    assert shop.label('a') == 'A'\n"
)
FIX = Patch.between({"shop.py": SHOP}, {"shop.py": SHOP.replace(" + 1", "")}).text
BREAK = Patch.between({"shop.py": SHOP}, {"shop.py": SHOP.replace("upper", "lower")}).text


def slow_fix(number: int, seconds: float) -> str:
    """A fix that takes some time: a distinct one for each number."""
    code = f"    import time\n    time.sleep({seconds})\n    return sum(prices) + {number} - {number}"
    return Patch.between({"shop.py": SHOP}, {"shop.py": SHOP.replace("    return sum(prices) + 1", code)}).text


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    root = tmp_path_factory.mktemp("shop")
    (root / "shop.py").write_text(SHOP)
    (root / "tests").mkdir()
    (root / "tests" / "test_shop.py").write_text(TESTS)
    return Task(
        id="shop", repository="shop", base=Tree(root), instruction="Mend total.",
        fail_to_pass=("tests/test_shop.py::test_total",), pass_to_pass=("tests/test_shop.py::test_label",),
        reference=Patch(FIX),
    )  # fmt: skip


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    with Scorer(workers=2, cache=tmp_path_factory.mktemp("cache")) as scorer:
        yield scorer


@contextmanager
def serving(verdicts: Verdicts, settings: ServerSettings, running: int = 2) -> Iterator[RewardServer]:
    """A server in a thread of this process, on a free port."""
    with RewardServer(verdicts, settings, running=running) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.is_started and thread.is_alive():
                time.sleep(0.01)
            yield server
        finally:
            server.stop()
            thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def server(task: Task, scorer: Scorer) -> Iterator[RewardServer]:
    verdicts = Verdicts([task], scorer, of_tests)
    settings = ServerSettings(port=0, body_megabytes=1, body_seconds=0.5, answers=20, linger=0.2, stop_seconds=20)
    with serving(verdicts, settings) as server:
        yield server
