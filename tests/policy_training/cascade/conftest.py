"""The repository of `shop` as a task, and a scorer with the model there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from regrade.datasets.tasks import Limits, Task, Tree
from regrade.datasets.tasks import TestSuite as Suite
from regrade.evaluators.scoring.scorer import Scorer
from tests.policy_training.cascade.shop import OF_RECEIPT, OF_TOTAL, SHOP, ByOperator, by_operator


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """One FAIL_TO_PASS test; of three others, one is in its file."""
    root = tmp_path_factory.mktemp("shop")
    for name, text in {"shop.py": SHOP, "test_total.py": OF_TOTAL, "test_receipt.py": OF_RECEIPT}.items():
        (root / name).write_text(text)
    kept = ("test_total.py::test_names", "test_receipt.py::test_receipt", "test_receipt.py::test_empty_receipt")
    return Task(
        id="total", repository="shop", base=Tree(root), instruction="Mend `total`.",
        fail_to_pass=("test_total.py::test_total",), pass_to_pass=kept, suite=Suite(), limits=Limits(wall_seconds=30),
    )  # fmt: skip


@pytest.fixture(scope="session")
def shop_evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shop-evidence")


@pytest.fixture(scope="module")
def shop_scorer(shop_evidence: Path) -> Iterator[Scorer]:
    with Scorer(workers=1, cache=shop_evidence, probes={ByOperator: by_operator}) as scorer:
        yield scorer
