"""The reward server under load: are results lost, doubled or exchanged, and what does a verdict over HTTP cost?

Clients post patches, many of them equal, each client in its own order. When half of the patches are scored, the server
is killed with SIGKILL and started again. Then:

- lost: posted answers without a verdict;
- doubled: executions of patches whose test run was stored before the kill, and executions of any by the scorer, called
  directly afterwards on the same store;
- exchanged: answers whose value is not that of their patch, which that scorer says.

The evidence of a run depends on this checkout and its environment. If a file of theirs is edited meanwhile, stored
evidence is rightly not read again: the benchmark then ends with an error and records nothing.

After that, the time of a verdict that is stored: called directly, over HTTP from the server's memory, and over HTTP
after a restart.

    python benchmarks/reward_server.py                                          # about 5 minutes on two idle cores
    python benchmarks/reward_server.py --patches 120 --distinct 30 --clients 4  # about 1 minute
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from _latest import record

from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.evaluators.execution.environments import identity
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.adapters.verdicts import Answer, Verdicts
from regrade.policy_training.serving.client import RewardClient
from regrade.rewards.loading import load_reward

SHOP = "def total(prices):\n    return sum(prices) + 1\n\n\ndef label(name):\n    return name.upper()\n"
TESTS = (
    "import shop\n\n\ndef test_total():\n    assert shop.total([1, 2]) == 3\n\n\n"
    "def test_label():\n    assert shop.label('a') == 'A'\n"
)
TASK = {
    "id": "shop",
    "instruction": "total() is off by one.",
    "repository": "shop",
    "fail_to_pass": ["tests/test_shop.py::test_total"],
    "pass_to_pass": ["tests/test_shop.py::test_label"],
}
REWARD = """\
from regrade.rewards import Diff, Score, reward, tests


@reward
def size(diff: Diff) -> Score:
    return Score(1 / (1 + diff.changed_lines))


both = 0.5 * tests + 0.5 * size
"""
KEY = "regrade_scorer_executions_total "


@dataclass(frozen=True)
class Loaded:
    """What came of the load."""

    values: list[list[float | None]]
    """Those that each client got, in the order of its answers."""
    stored_before_kill: int
    """Distinct patches whose test run was stored."""
    executed_after_kill: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=2000, help="posted answers")
    parser.add_argument("--distinct", type=int, default=400, help="distinct patches among them")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--calls", type=int, default=500, help="calls for each latency")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as folder:
        figures = measure(Path(folder), chosen)
    record("reward_server", figures)


def measure(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    write_task(folder)
    os.environ["REGRADE_CACHE"] = str(folder / "cache")
    rng = random.Random(chosen.seed)
    distinct = [patch(number) for number in range(chosen.distinct)]
    posted = [*distinct, *rng.choices(distinct, k=chosen.patches - len(distinct))]
    rng.shuffle(posted)
    shares = [posted[start :: chosen.clients] for start in range(chosen.clients)]
    port, environment = free_port(), identity(Path(sys.executable))
    began = time.perf_counter()
    loaded = asyncio.run(load(folder, port, shares, chosen.distinct // 2, rng))
    seconds = round(time.perf_counter() - began, 1)
    print(f"{chosen.patches} answers, {chosen.distinct} distinct, {chosen.clients} clients: {seconds} s", flush=True)
    (task,) = load_tasks(folder / "task.json")
    with Scorer(workers=1) as scorer:
        verdicts = Verdicts([task], scorer, load_reward(f"{folder / 'reward.py'}:both"))
        values = {text: verdicts.of([Answer("shop", patch=text)])[0].value for text in distinct}
        if identity(Path(sys.executable)) != environment:
            raise SystemExit("error: a file of this checkout or of its environment changed meanwhile: start again")
        figures = checked(loaded, shares, values, scorer.stats.executions)
        texts = [distinct[number % len(distinct)] for number in range(chosen.calls)]
        direct = [timed(lambda text=text: verdicts.of([Answer("shop", patch=text)])) for text in texts]
    with served(folder, port):
        restarted = latencies(port, texts[: len(distinct)])
        remembered = latencies(port, texts)
    counts = {"answers": chosen.patches, "distinct": chosen.distinct, "clients": chosen.clients, "seconds": seconds}
    return {**counts, **figures, **shown({"direct": direct, "restarted": restarted, "remembered": remembered})}


def checked(
    loaded: Loaded, shares: Sequence[Sequence[str]], values: Mapping[str, float | None], executed_directly: int
) -> dict[str, int]:
    """What was lost, doubled or exchanged.

    Args:
        values: patch -> its value, as the scorer says.
        executed_directly: by that scorer, for which everything should be stored.
    """
    pairs = [
        (values[text], value)
        for share, got in zip(shares, loaded.values, strict=True)
        for text, value in zip(share, got, strict=False)
    ]
    lost = sum(map(len, shares)) - len(pairs) + sum(value is None for _, value in pairs)
    exchanged = sum(value is not None and value != expected for expected, value in pairs)
    missing = len(values) - loaded.stored_before_kill
    doubled = loaded.executed_after_kill - missing + executed_directly
    print(
        f"killed after {loaded.stored_before_kill} stored test runs, {loaded.executed_after_kill} executed after "
        f"({missing} were missing), {executed_directly} executed directly: "
        f"lost {lost}, doubled {doubled}, exchanged {exchanged} ({len(set(values.values()))} different values)"
    )
    counts = {"lost": lost, "doubled": doubled, "exchanged": exchanged}
    return {**counts, "stored_before_kill": loaded.stored_before_kill}


def shown(rows: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Print and return the latencies, in milliseconds."""
    figures = {}
    for name, seconds in rows.items():
        for which, number in (
            ("median", statistics.median),
            ("p99", lambda each: statistics.quantiles(each, n=100)[98]),
        ):
            figures[f"{name}_{which}_ms"] = round(1000 * number(seconds), 2)
            added = figures[f"{name}_{which}_ms"] - figures[f"direct_{which}_ms"]
            figures[f"{name}_{which}_added_ms"] = round(added, 2)
            print(
                f"stored verdict, {name:<10} {which:<6} {figures[f'{name}_{which}_ms']:8.2f} ms, added {added:8.2f} ms"
            )
    return figures


def write_task(folder: Path) -> None:
    (folder / "shop" / "tests").mkdir(parents=True)
    (folder / "shop" / "shop.py").write_text(SHOP)
    (folder / "shop" / "tests" / "test_shop.py").write_text(TESTS)
    (folder / "task.json").write_text(json.dumps(TASK))
    (folder / "reward.py").write_text(REWARD)


def patch(number: int) -> str:
    """A patch whose value differs from that of most others: it fixes or not, with some lines."""
    end = "" if number % 3 else " + 1"
    lines = "".join(f"    part_{line} = {number}\n" for line in range(number % 100))
    after = f"    # {number}\n{lines}    return sum(prices){end}\n"
    return Patch.between({"shop.py": SHOP}, {"shop.py": SHOP.replace("    return sum(prices) + 1\n", after)}).text


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def served(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(Path(sys.executable).with_name("regrade")), "serve", "--tasks", "task.json", "--log", "json"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--reward", "reward.py:both", "--port", str(port)], cwd=folder, stdout=log, stderr=log
        )
    try:
        while True:
            try:
                httpx2.get(f"http://127.0.0.1:{port}/health")
                break
            except httpx2.TransportError:
                if process.poll() is not None:
                    raise SystemExit((folder / "log").read_text()) from None
                time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()


def scored_digests(folder: Path) -> set[str]:
    """Digests of the answers whose verdict the log names: their evidence is stored."""
    digests = set()
    for line in (folder / "log").read_text().splitlines():
        if line.startswith("{") and line.endswith("}"):
            content = json.loads(line)
            if content.get("value") is not None:
                digests.add(content["digest"])
    return digests


def stored_test_runs(folder: Path) -> int:
    """Patches whose test run is in the store, which one task and one environment share."""
    with contextlib.closing(sqlite3.connect(folder / "cache" / "evidence.sqlite")) as store:
        return int(store.execute("SELECT count(*) FROM evidence WHERE kind = 'TestRun'").fetchone()[0])


async def load(folder: Path, port: int, shares: Sequence[Sequence[str]], until: int, rng: random.Random) -> Loaded:
    """Post all shares, and kill the server after `until` distinct verdicts."""
    sizes = [rng.randint(1, 8) for _ in shares]
    with served(folder, port) as process:
        clients = [asyncio.create_task(values_of(port, share, size)) for share, size in zip(shares, sizes, strict=True)]
        while len(scored_digests(folder)) < until:
            await asyncio.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
    stored = stored_test_runs(folder)
    with served(folder, port):
        answers = list(await asyncio.gather(*clients))
        text = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
    executed = next(line for line in text.splitlines() if line.startswith(KEY)).split()[1]
    return Loaded(answers, stored, int(float(executed)))


async def values_of(port: int, share: Sequence[str], size: int) -> list[float | None]:
    """One client: it posts its answers in batches, one after another."""
    client = RewardClient(f"http://127.0.0.1:{port}", tries=1000)
    values: list[float | None] = []
    for start in range(0, len(share), size):
        batch = [Answer("shop", patch=text) for text in share[start : start + size]]
        values.extend(verdict.value for verdict in await client.score_async(batch))
    await client.aclose()
    return values


def timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def latencies(port: int, texts: Sequence[str]) -> list[float]:
    """Seconds of each call, one at a time over one connection."""
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        client.get("/health")
        bodies = [{"answers": [{"task_id": "shop", "patch": text}]} for text in texts]
        return [timed(lambda body=body: client.post("/score", json=body).raise_for_status()) for body in bodies]


if __name__ == "__main__":
    main()
