"""Keys of stored evidence cover all that the evidence depends on: the fields of a task, the measurements of a suite."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.container_images import ContainerImage
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Shown, Target, Task, TestSuite, Tree
from regrade.evaluators.scoring.environment_cache import EnvironmentCache
from regrade.evaluators.scoring.planner import Planner
from regrade.evaluators.scoring.probes import STATIC
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.scoring.task_digests import OF_TASK, WITHOUT_EFFECT, Digests
from regrade.evaluators.storage.evidence_store import EvidenceStore
from regrade.rewards.evidence import TestRun

REACH = {"calculator.py::add": ("tests/test_calculator.py::test_add",)}
SECONDS = {"tests/test_calculator.py": 0.5, "": 1.0}
MEASURED = TestSuite(reach=REACH, imported=frozenset({"calculator.py::multiply"}), seconds=SECONDS)


@pytest.mark.parametrize("suite", [MEASURED, TestSuite(seconds=SECONDS)], ids=["reach and seconds", "seconds alone"])
def test_other_seconds_are_another_suite(suite):
    digests = Digests()
    others = [
        replace(suite, seconds=None),
        replace(suite, seconds={**SECONDS, "": 2.0}),
        replace(suite, reach={}),
        replace(suite, reach={**REACH, "calculator.py::square": ()}),
        replace(suite, imported=frozenset({"calculator.py::square"})),
    ]
    assert len({digests.of_reach(other) for other in (suite, *others)}) == 6
    again = replace(suite, seconds=dict(reversed(SECONDS.items())))
    assert Digests().of_reach(again) == digests.of_reach(again) == digests.of_reach(suite)


def test_nothing_measured_is_no_digest():
    assert Digests().of_reach(TestSuite()) == ""


def test_finding_the_digest_again_is_quick():
    digests, suite = Digests(), replace(MEASURED, reach={f"a.py::f{number}": ("t",) * 9 for number in range(20_000)})
    digests.of_reach(suite)
    began = time.perf_counter()
    for _ in range(1000):
        digests.of_reach(suite)
    assert time.perf_counter() - began < 0.1  # 0.1 ms each, of the millisecond that a hit may take


def test_evidence_gathered_under_other_limits_of_time_is_not_taken(task, tmp_path):
    tasks = [replace(task, suite=replace(task.suite, seconds=seconds)) for seconds in (None, SECONDS, dict(SECONDS))]
    with Scorer(workers=1, sandbox="process", cache=tmp_path / "cache") as scorer:
        counts = []
        for other in tasks:
            scorer.gather([(other, Patch(""))], [TestRun])
            counts.append(scorer.stats.executions)
    assert counts == [1, 2, 2]


@dataclass(frozen=True)
class Words:
    """Evidence of a user, which may depend on anything in a task."""

    count: int


def whole_task(folder: Path) -> Task:
    """A task without a default in any field."""
    (folder / "pristine").mkdir()
    (folder / "pristine" / "shop.py").write_text("x = 1\n")
    image = ContainerImage(
        name="shop:1", workdir="/shop", user="root", activate="activate", setup="setup", command="command",
        environment=(("A", "B"),),
    )  # fmt: skip
    suite = TestSuite(
        python_path=("src",), paths=("tests",), options=("-q",), protected=("*.cfg",), test_files=("tests/test_a.py",),
        product_files=("shop/test.py",), doctest_files=("shop.py",), checked_files=("NEWS",), doctests=(("a", "b"),),
        test_modules=(("test_a", "tests/test_a.py"),), foreign_modules=("numpy",), configuration="pytest.ini",
        runner="pytest", image=image, reach={"shop.py::f": ("t",)}, imported=frozenset({"shop.py::g"}),
        companions={"t": ""}, seconds={"": 1.0}, slow={"t": 2.0},
    )  # fmt: skip
    return Task(
        id="shop", repository="shop", base=Tree(folder / "pristine", {"a.py": "1"}, frozenset({"b.py"})),
        instruction="Fix it.", fail_to_pass=("t",), pass_to_pass=("u",), suite=suite, requirements=("pytest==9",),
        limits=Limits(test_seconds=3.0), unnamed=("v",), source="own", kind="bug", target=Target("a.py", "f", 1, 2),
        failure="assert", reference=Patch("--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-1\n+2\n"), shown=Shown(tests=("t",)),
        difficulty="hard", assurance="tripwired", is_unmeasured=False,
    )  # fmt: skip


def perturbed(value: Any, folder: Path) -> Iterator[tuple[str, Any]]:
    """Each way to change one field of a value, by the path of the field."""
    if isinstance(value, Patch):
        yield "", Patch(value.text.replace("+2", "+3"))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            for path, other in perturbed(getattr(value, field.name), folder):
                yield f"{field.name}.{path}".rstrip("."), replace(value, **{field.name: other})
    elif isinstance(value, Path):
        (folder / "other").mkdir(exist_ok=True)
        (folder / "other" / "shop.py").write_text("x = 2\n")
        yield "", folder / "other"
    elif isinstance(value, Mapping):
        yield "", {**value, "new": next(iter(value.values()), "new")}
    elif isinstance(value, tuple | frozenset):
        yield "", type(value)([*value, *((("new", "new"),) if isinstance(next(iter(value)), tuple) else ("new",))])
    elif isinstance(value, bool):
        yield "", not value
    elif isinstance(value, int | float):
        yield "", value + 1
    else:
        assert isinstance(value, str), value  # a field of another kind, or None: say here how it can change
        yield "", f"{value}x"


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    cache = tmp_path_factory.mktemp("cache")
    probes = {**STATIC, Words: lambda *_: Words(1)}
    environments = EnvironmentCache(cache)
    return Planner(
        EvidenceStore(cache / "evidence"), environments, Digests(), probes, sandbox="process", cold=False, fresh=False
    )


def test_every_field_of_a_task_is_in_a_digest_or_declared_without_effect(planner: Planner, tmp_path: Path) -> None:
    task, patch = whole_task(tmp_path), Patch("")
    others = dict(perturbed(task, tmp_path))
    assert {path.partition(".")[0] for path in others} == {field.name for field in dataclasses.fields(Task)}
    assert others.keys() >= WITHOUT_EFFECT.keys()
    executed, own = (planner.identity((task, patch), {kind}, True) for kind in (TestRun, Words))
    for path, other in others.items():
        assert (planner.identity((other, patch), {Words}, True) != own) == (path not in WITHOUT_EFFECT), path
        is_described = path.partition(".")[0] not in {*OF_TASK, "reference"}
        is_equal = planner.identity((other, patch), {TestRun}, True) == executed
        assert is_equal == (path in WITHOUT_EFFECT or is_described), path
    # Without a reference, the target decides which functions are stubbed.
    bare = [task.without_reference() for task in (task, others["target.function"])]
    assert len({planner.identity((each, patch), {TestRun}, True) for each in bare}) == 2
