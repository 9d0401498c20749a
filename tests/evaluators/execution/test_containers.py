"""Tasks in Docker images: the same verdicts and the same protection as in the other sandboxes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task
from regrade.datasets.text_diffs import unified_diff_of
from regrade.evaluators import Scorer
from regrade.evaluators.sandboxes import KINDS
from regrade.evaluators.sandboxes.docker import LABEL
from regrade.evaluators.scoring import gatherer
from regrade.rewards import assured, resolved
from regrade.rewards.breakdown import Breakdown
from tests.evaluators.local_image import ACTIVATE, archive

pytestmark = [pytest.mark.docker, pytest.mark.slow]
IMAGE = "regrade-test-image:swebench"
CODE = "cart/__init__.py"
BROKEN = "def total(prices):\n    return sum(prices[:-1])\n"
FIXED = "def total(prices):\n    return sum(prices)\n"
TESTS = "from cart import total\n\n\ndef test_total():\n    assert total([1, 2, 3]) == 6\n\n\ndef test_none():\n    assert total([]) == 0\n"
UNITTESTS = '''import unittest

from cart import total


class TestCart(unittest.TestCase):
    def test_total(self):
        self.assertEqual(total([1, 2, 3]), 6)

    def test_none(self):
        """Nothing costs nothing."""
        self.assertEqual(total([]), 0)
'''
REPOSITORY = {CODE: BROKEN, "tests/__init__.py": "", "tests/test_cart.py": TESTS, "tests/test_units.py": UNITTESTS}
FIX = Patch(unified_diff_of(CODE, BROKEN, FIXED))
PYTEST_IDS = ("tests/test_cart.py::test_total", "tests/test_cart.py::test_none")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    if reason := KINDS["docker"]().problem():
        pytest.skip(reason)
    import docker

    client = docker.APIClient(timeout=120, **docker.utils.kwargs_from_env())
    repository, _, tag = IMAGE.partition(":")
    client.import_image_from_data(archive(REPOSITORY), repository=repository, tag=tag, changes=["WORKDIR /testbed"])
    yield client
    for name in client.images("regrade-test-image"):
        client.remove_image(name["Id"], force=True)
    client.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("containers")


@pytest.fixture(scope="module")
def scorer(client: Any, folder: Path) -> Iterator[Scorer]:
    assert client.ping()
    with Scorer(workers=1, cache=folder / "cache") as scorer:
        yield scorer


@pytest.fixture
def make_task(folder: Path) -> Callable[..., Task]:
    def make(fail_to_pass: str, pass_to_pass: str, **image: Any) -> Task:
        entry = {
            "id": "cart",
            "instruction": "the last price is missing",
            "fail_to_pass": [fail_to_pass],
            "pass_to_pass": [pass_to_pass],
            "image": {"name": IMAGE, "activate": ACTIVATE, **image},
        }
        path = folder / "tasks.json"
        path.write_text(json.dumps(entry), "utf-8")
        (task,) = load_tasks(path, cache=folder / "cache")
        return task

    return make


def values(breakdowns: list[Breakdown]) -> list[tuple[float | None, str]]:
    return [(each.value, each.assurance) for each in breakdowns]


def test_pytest_runs_warm_in_the_environment_of_the_image(
    scorer: Scorer, make_task: Callable[..., Task], client: Any
) -> None:
    task = make_task(*PYTEST_IDS)
    assert task.base.paths() == sorted(REPOSITORY)  # without the history
    fixed, nothing = scorer.score([(task, FIX), (task, Patch(""))], resolved.only_if(assured("out-of-process")))
    assert (fixed.value, fixed.assurance) == (1.0, "out-of-process")
    assert nothing.value == 0.0
    client.tag(IMAGE, "regrade-test-image", "other-name")
    executions = scorer.stats.executions
    same = replace(
        task, suite=replace(task.suite, image=replace(task.suite.image, name="regrade-test-image:other-name"))
    )
    scorer.score([(same, FIX)], resolved)
    assert scorer.stats.executions == executions  # stored under the image's content, whatever its name


COLD = {
    "pytest": {"command": "python -m pytest {files}", "reader": "pytest"},
    "junit": {
        "command": "python -m pytest -o junit_family=xunit1 --junitxml={report} {files}",
        "reader": "junit",
        "user": "root",
    },
    "pytest-log": {"command": "python -m pytest -rA {files}", "reader": "pytest-log"},
    "unittest": {"command": "python -m unittest tests.test_units", "reader": "unittest"},
}
UNITTEST_IDS = ("tests.test_units.TestCart.test_total", "Nothing costs nothing.")


def cold_task(make_task: Callable[..., Task], reader: str) -> Task:
    return make_task(*(UNITTEST_IDS if reader == "unittest" else PYTEST_IDS), **COLD[reader])


@pytest.mark.parametrize("reader", COLD)
def test_a_command_runs_in_a_new_container(reader: str, scorer: Scorer, make_task: Callable[..., Task]) -> None:
    level = "unsealed" if reader.endswith("-log") else "in-process"
    task = cold_task(make_task, reader)
    assert values(scorer.score([(task, FIX), (task, Patch(""))], resolved)) == [(1.0, level), (0.0, level)]


LINES = "\n".join(f"PASSED {test}" for test in PYTEST_IDS)
CASES = "".join(f'<testcase file="tests/test_cart.py" name="{test.rpartition(":")[2]}"/>' for test in PYTEST_IDS)
SUITE = f'<testsuite tests="2">{CASES}</testsuite>'
RECORDS = "\n".join(json.dumps(["test", test, "passed", 0.0, ""]) for test in PYTEST_IDS)
PIPE = "/regrade-results/pipe"
LOG = f"\n{LINES}\n==== 2 passed in 0.01s ====\n"


def prints(text: str) -> str:
    """Code that prints to the stream of the command, past pytest's capture."""
    return f"""import contextlib, os, stat
for number in range(3, 64):
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            os.write(number, {text!r}.encode())
            break
"""


DAEMON = """import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            {act}
            time.sleep(0.005)
    os._exit(0)
"""


def writes(text: str) -> str:
    return f"with open({PIPE!r}, 'w') as pipe:\n    pipe.write({text!r})\n"


def patch_of(prefix: str, code: str = BROKEN) -> Patch:
    return Patch(unified_diff_of(CODE, BROKEN, prefix + code))


def running(client: Any) -> set[str]:
    """The containers of the test's image."""
    return {each["Id"] for each in client.containers(all=True, filters={"label": LABEL, "ancestor": IMAGE})}


def test_a_patch_cannot_write_its_verdict(scorer: Scorer, make_task: Callable[..., Task], client: Any) -> None:
    before = running(client)
    log, sealed, junit = (cold_task(make_task, reader) for reader in ("pytest-log", "pytest", "junit"))
    hasty = replace(sealed, limits=replace(sealed.limits, wall_seconds=4.0))
    forged = DAEMON.format(act=f"os.write(1, {LINES + chr(10)!r}.encode())")
    jobs = [
        (log, patch_of(prints(f"\n{LINES}\n"))),
        (log, patch_of(forged)),
        (sealed, patch_of(writes(RECORDS + '\n["finished", 0]\n'))),
        (sealed, patch_of(prints(LOG) + "os._exit(0)\n")),
        (hasty, patch_of("while True:\n    pass\n")),
        (junit, patch_of(DAEMON.format(act=f"open({PIPE!r}, 'w').write({SUITE!r})"))),
    ]
    assert [each.value for each in scorer.score(jobs, resolved)] == [0.0] * len(jobs)
    # Printing everything and leaving is possible where outcomes are printed: the level says so, and a reward may refuse.
    left = patch_of(prints(LOG) + "os._exit(0)\n")
    assert values(scorer.score([(log, left)], resolved)) == [(1.0, "unsealed")]
    assert values(scorer.score([(log, left), (sealed, FIX)], resolved.only_if(assured("in-process")))) == [
        (0.0, "unsealed"),
        (1.0, "in-process"),
    ]
    assert running(client) <= before


def test_a_process_left_behind_neither_delays_nor_spoils_a_right_fix(
    scorer: Scorer, make_task: Callable[..., Task]
) -> None:
    task = cold_task(make_task, "pytest")
    (breakdown,) = scorer.score([(task, patch_of(DAEMON.format(act="time.sleep(1000)"), FIXED))], resolved)
    assert breakdown.value == 1.0


def test_an_image_that_cannot_be_started_is_unscored(
    scorer: Scorer, make_task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatherer, "BACK_OFF", (0.0,))
    task = make_task(*PYTEST_IDS)
    missing = replace(task, suite=replace(task.suite, image=replace(task.suite.image, name="regrade-nowhere:1")))
    (breakdown,) = scorer.score([(missing, FIX)], resolved)
    assert breakdown.status == "unscored"
    assert "the image 'regrade-nowhere:1' is not on this machine: docker pull regrade-nowhere:1" in breakdown.cause


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            {"activate": ""},
            r"the image '.*' has no python that an unprivileged user can run, which the reader 'pytest'",
        ),
        ({"user": "nobody-there"}, r"the image '.*' has no user 'nobody-there'"),
        ({"activate": "conda activate other"}, r"the lines of 'activate' fail in the image"),
    ],
)
def test_an_image_that_lacks_what_the_task_names(
    image: dict[str, str], message: str, scorer: Scorer, make_task: Callable[..., Task]
) -> None:
    task = make_task(*PYTEST_IDS, **image)
    with pytest.raises(UserError, match=message):
        scorer.score([(task, FIX)], resolved)


def test_an_image_without_the_folder(scorer: Scorer, make_task: Callable[..., Task]) -> None:
    with pytest.raises(UserError, match=r"the image '.*' has no folder '/nowhere': set 'workdir'"):
        make_task(*PYTEST_IDS, workdir="/nowhere")
    task = make_task(*PYTEST_IDS)
    elsewhere = replace(task, suite=replace(task.suite, image=replace(task.suite.image, workdir="/nowhere")))
    with pytest.raises(UserError, match=r"the image '.*' has no folder '/nowhere'"):
        scorer.score([(elsewhere, FIX)], resolved)
