"""Tests that a candidate rewrites on disk, where it has the user id of their owner, are no evidence."""

from __future__ import annotations

import pytest

from regrade.datasets.patches import Patch
from regrade.evaluators.sandboxes import Bubblewrap, Process
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.rewards.evidence import End, TestRun

CODE = "def total(prices):\n    return sum(prices) + 1\n"
FILES = {
    "shop.py": CODE,
    "tests/expected.json": "3",
    "tests/log.txt": "",
    "tests/test_shop.py": (
        "import json\nfrom pathlib import Path\nfrom shop import total\n\nHERE = Path(__file__).parent\n\n\n"
        "def test_total():\n    assert total([1, 2]) == json.loads((HERE / 'expected.json').read_text())\n\n\n"
        "def test_log():\n    (HERE / 'log.txt').write_text('own data of the tests')\n"
    ),
}
REWRITES = "from pathlib import Path\nfile = Path(__file__).parent / 'tests' / 'expected.json'\n\nfile.{how}\n\n\n"
WAYS = [
    "write_text('4')",
    "unlink() or file.write_text('4')",
    "rename(file.with_suffix('.x')) and file.write_text('4')",
]


def edited(text: str) -> Patch:
    return Patch.between({"shop.py": CODE}, {"shop.py": text})


@pytest.mark.filterwarnings("ignore:the plain process")
@pytest.mark.parametrize("sandbox", [Bubblewrap(user_namespace=True), Process()], ids=["user namespace", "process"])
def test_a_candidate_that_rewrites_tests_fixes_nothing(sandbox, write_files, tmp_path):
    root = write_files(FILES).root
    if sandbox.problem():
        pytest.skip(sandbox.problem())
    task = local_task(root, ["tests/test_shop.py::test_total"], sandbox=sandbox, runs=1, cache=tmp_path / "cache")
    cheats = [edited(REWRITES.format(how=how) + CODE) for how in WAYS]
    honest = edited(CODE.replace(" + 1", ""))
    with Scorer(workers=1, sandbox=sandbox, cache=tmp_path / "cache") as scorer:
        gathered = scorer.gather([(task, patch) for patch in (*cheats, honest)], [TestRun])
    runs = [evidence.records[TestRun] for evidence in gathered]
    for run in runs[:-1]:
        assert (run.end, run.resolved) == (End.CRASHED, False), run
        assert run.detail == "it changed the protected file tests/expected.json while the tests ran"
    assert runs[-1].resolved, runs[-1]
