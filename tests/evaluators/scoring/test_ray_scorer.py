"""The scorer on a Ray cluster of several nodes: the same results, also after the loss of a node."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from regrade import rewards
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.evaluators.scoring import ray_scorer
from regrade.evaluators.scoring.ray_scorer import RayScorer
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.baseline import baseline
from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.serving.client import RewardClient
from regrade.rewards.evidence import Diff, TestRun

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster():
    from ray.cluster_utils import Cluster

    quiet = {"include_dashboard": False, "include_log_monitor": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **quiet})
    for _ in range(3):
        made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def patches(edit, fix):
    """A fix, nothing, and thirty patches of which some break something."""
    return [
        fix,
        Patch(""),
        *(edit("product = 0\n", f"product = {number % 3} + 0 * {number}\n") for number in range(30)),
    ]


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory):
    """The cache of a scorer without a cluster: the same patches are compared with several times."""
    return tmp_path_factory.mktemp("one")


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_an_address_at_which_nothing_listens_is_named_at_once(form):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(f"127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(UserError, match=f"no Ray cluster answers at {address} .*ray start"):
        ray_scorer._check_answers(address)


def test_a_cluster_says_what_one_machine_says(task, patches, one_machine, tmp_path):
    patches = patches[:12]  # no node is lost, so that a few for each node suffice
    jobs = [(task, patch) for patch in [*patches, *patches[:3]]]
    with Scorer(cache=one_machine) as scorer:
        here = scorer.score(jobs, rewards.default)
    with RayScorer(cache=tmp_path / "driver", node_cache=str(tmp_path / "node")) as scorer:
        seen = []
        there = scorer.score(jobs, rewards.default, progress=lambda done, total: seen.append((done, total)))
        assert there == here
        assert seen[-1] == (len(jobs), len(jobs))
        assert scorer.stats.executions >= len(patches)
        assert len({facts.node for facts in scorer.nodes()}) == 3
        before = scorer.stats.executions
        assert scorer.score(jobs, rewards.default) == here
        assert scorer.stats.executions == before, "all evidence has come to the driver"
        assert [found.value for found in scorer.stream(jobs[:4], rewards.tests)] == [
            found.value for found in Scorer.score(scorer, jobs[:4], rewards.tests)
        ]


def test_a_node_that_is_killed_loses_no_answer_and_doubles_none(cluster, task, patches, one_machine, tmp_path):
    extra = cluster.add_node(num_cpus=1)
    jobs = [(task, patch) for patch in patches]
    with RayScorer(cache=tmp_path / "driver", node_cache=str(tmp_path / "node")) as scorer:
        done = []
        killer = threading.Thread(target=lambda: (_until(lambda: len(done) > 2), cluster.remove_node(extra, False)))
        killer.start()
        found = scorer.gather(jobs, [TestRun, Diff], progress=lambda count, _: done.append(count))
        killer.join()
        assert scorer.score(jobs[:2], rewards.tests)[0].value == 1.0
        nodes = {facts.node for facts in scorer.nodes()}
    assert all(not evidence.infrastructure for evidence in found)
    assert done == sorted(set(done))
    assert done[-1] == len(jobs)
    assert extra.node_id not in nodes
    with Scorer(cache=one_machine) as scorer:
        here = scorer.gather(jobs, [TestRun])
    for one, other in zip(found, here, strict=True):
        assert one.records[TestRun].outcomes == other.records[TestRun].outcomes


def test_what_an_audit_finds_on_the_nodes_is_counted_here(task, edit, fix, tmp_path):
    found = baseline(task.base, task.suite, runs=1)
    # A measure of reach that knows of no test for `advance`: the selection then misses what the audit finds.
    blind = {key: () if key.endswith("::Counter.advance") else tests for key, tests in found.reach.items()}
    aware = replace(task, suite=found.applied_to(task.suite))
    unaware = replace(aware, id="unaware", suite=replace(aware.suite, reach=blind))
    breaks = edit("self.count += self.step", "self.count -= self.step")
    advance = "tests/test_calculator.py::TestCounter::test_advance"
    with RayScorer(cache=tmp_path / "driver", node_cache=str(tmp_path / "node"), audit=1.0) as scorer:
        found = scorer.gather([(aware, breaks), (aware, fix)], [TestRun], reachable=True)
        runs = [each.records[TestRun] for each in found]
        assert ([run.scope for run in runs], runs[0].broken) == (["reachable", "reachable"], (advance,))
        assert (scorer.stats.audited, scorer.stats.caught, scorer.stats.missed) == (2, 1, ())
        assert scorer.stats.selection_recall == 1.0
        (missed,) = scorer.gather([(unaware, breaks)], [TestRun], reachable=True)
        assert (missed.records[TestRun].scope, missed.records[TestRun].broken) == ("full", (advance,))
        assert (scorer.stats.audited, scorer.stats.missed) == (3, (f"unaware: {advance}",))
        assert scorer.stats.selection_recall == 0.5
        (whole,) = scorer.gather([(aware, fix)], [TestRun])
        assert whole.records[TestRun].scope == "full"


def _until(holds):
    while not holds():
        time.sleep(0.01)


def test_a_users_mistake_is_one_on_a_node_too(task, fix, tmp_path):
    scorer = RayScorer(cache=tmp_path / "driver", node_cache="/proc/none")
    with pytest.raises(UserError, match="cache folder"):
        scorer.score([(task, fix)], rewards.tests)
    scorer.close()


def test_a_node_with_other_packages_is_refused(task, fix, tmp_path, monkeypatch):
    with RayScorer(cache=tmp_path / "driver", node_cache=str(tmp_path / "node")) as scorer:
        here = scorer._environments.distributions(task.requirements)
        other = ("only-here==1.0", *here[1:])
        monkeypatch.setattr(scorer._environments, "distributions", lambda _: other)
        with pytest.raises(UserError, match=r"with other packages .*only-here==1\.0"):
            scorer.score([(task, fix)], rewards.tests)
        monkeypatch.setattr(scorer._environments, "distributions", lambda _: here)
        assert scorer.score([(task, fix)], rewards.tests)[0].value == 1.0


@contextmanager
def served(cluster, task, folder):
    """The address of `regrade serve --ray`, with the cluster's address."""
    content = {
        "id": task.id, "instruction": task.instruction, "repository": str(task.base.root),
        "fail_to_pass": list(task.fail_to_pass), "pass_to_pass": list(task.pass_to_pass),
    }  # fmt: skip
    (folder / "task.json").write_text(json.dumps(content))
    command = [str(Path(sys.executable).with_name("regrade")), "serve", "--ray", cluster.address]
    options = ["--tasks", "task.json", "--reward", "tests", "--port", "0", "--workers", "4"]
    environment = {**os.environ, "REGRADE_CACHE": str(folder / "driver")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        line = process.stdout.readline()
        assert " on http" in line, (folder / "log").read_text()
        yield line.partition(" on ")[2].split()[0]
    finally:
        process.terminate()
        assert process.wait(120) == 0, (folder / "log").read_text()


def test_a_server_on_the_cluster_loses_and_doubles_nothing_as_a_node_is_killed(
    cluster, task, patches, one_machine, tmp_path
):
    import httpx2

    extra = cluster.add_node(num_cpus=1)
    answers = [Answer(task.id, patch=patch.text) for patch in [*patches, *patches[:8]]]
    with served(cluster, task, tmp_path) as url, RewardClient(url) as client:

        def executions():
            lines = httpx2.get(f"{url}/metrics").text.splitlines()
            return sum(float(line.split()[1]) for line in lines if line.startswith("regrade_scorer_executions_total "))

        killer = threading.Thread(target=lambda: (_until(lambda: executions() > 3), cluster.remove_node(extra, False)))
        killer.start()
        verdicts = client.score(answers)
        killer.join()
        ran = executions()
    with Scorer(cache=one_machine) as scorer:
        here = scorer.score([(task, patch) for patch in patches], rewards.tests)
    assert [verdict.value for verdict in verdicts] == [each.value for each in [*here, *here[:8]]]
    assert ran <= len(patches), "an execution whose answer came is not made again"


def test_without_any_node_jobs_end_unscored_with_the_reason_and_later_ones_at_once(
    cluster, task, patches, tmp_path, monkeypatch
):
    with RayScorer(cache=tmp_path / "driver", node_cache=str(tmp_path / "node")) as scorer:
        assert scorer.score([(task, patches[0])], rewards.tests)[0].value == 1.0
        monkeypatch.setattr(ray_scorer, "START_SECONDS", 8.0)
        workers = [node for node in cluster.list_all_nodes() if node is not cluster.head_node]
        for node in workers:
            cluster.remove_node(node, False)
        lost = scorer.gather([(task, patch) for patch in patches[1:7]], [TestRun])
        assert {each.infrastructure[TestRun].partition(": ")[0] for each in lost} == {"NoNodeError"}
        began = time.monotonic()
        (again,) = scorer.gather([(task, patches[7])], [TestRun])
        assert "no node of the Ray cluster" in again.infrastructure[TestRun]
        assert time.monotonic() - began < 8.0, "it is the same outage"
        monkeypatch.setattr(ray_scorer, "START_SECONDS", 300.0)
        for _ in workers:
            cluster.add_node(num_cpus=1)
        assert not scorer.gather([(task, patches[7])], [TestRun])[0].infrastructure
