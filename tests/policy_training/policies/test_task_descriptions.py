"""What a policy in a chat is shown, and what its answers are read as."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Target, Task, Tree
from regrade.policy_training.policies.task_descriptions import ChatPrompt, describe

FILES = {
    "shop/__init__.py": "from shop.prices import net\n",
    "shop/prices.py": "from shop.rates import RATE\n\n\ndef net(price):\n    return price * RATE\n",
    "shop/rates.py": "RATE = 1.2\n",
    "shop/unrelated.py": "def other():\n    return 1",
    "tests/test_prices.py": "from shop.prices import net\nfrom tests.helpers import near\n\n\ndef test_net():\n    assert near(net(12), 10)\n",
    "tests/helpers.py": "def near(a, b):\n    return abs(a - b) < 1e-9\n",
}
MEND = "<<<<<<< SEARCH\n    return price * RATE\n=======\n    return price / RATE\n>>>>>>> REPLACE"
MENDED = Patch.between(
    {"shop/prices.py": FILES["shop/prices.py"]}, {"shop/prices.py": FILES["shop/prices.py"].replace("*", "/")}
)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return Task(
        id="t",
        repository="shop",
        base=Tree(tmp_path),
        instruction="Prices are wrong.",
        fail_to_pass=("tests/test_prices.py::test_net",),
        pass_to_pass=(),
    )


def test_the_files_that_the_failing_test_imports_are_shown_nearest_first(task: Task) -> None:
    assert list(ChatPrompt(task).sources()) == [
        "shop/prices.py", "shop/rates.py", "tests/test_prices.py", "tests/helpers.py"
    ]  # fmt: skip
    named = replace(task, target=Target("shop/unrelated.py", "other", 1, 2))
    assert next(iter(ChatPrompt(named).sources())) == "shop/unrelated.py"


def test_what_does_not_fit_is_left_out(task: Task) -> None:
    small = ChatPrompt(task, largest=len(FILES["shop/prices.py"]) + len(FILES["shop/rates.py"])).sources()
    assert sum(map(len, small.values())) <= len(FILES["shop/prices.py"]) + len(FILES["shop/rates.py"])
    assert "shop/prices.py" in small


def test_the_question_says_what_is_asked_and_by_which_tests(task: Task) -> None:
    text = describe(replace(task, failure="assert False"))
    for words in ("Prices are wrong.", "- tests/test_prices.py::test_net", "assert False"):
        assert words in text
    many = describe(replace(task, fail_to_pass=tuple(f"t.py::t{n}" for n in range(1000))))
    assert "- and 980 more" in many
    system, user = ChatPrompt(task).messages
    assert (system["role"], user["role"]) == ("system", "user")
    assert FILES["shop/prices.py"] in user["content"]


@pytest.mark.parametrize(
    "answer",
    [
        f"shop/prices.py\n{MEND}",
        f"`shop/prices.py`\n```python\n{MEND}\n```",
        f"### ./shop/prices.py:\n{MEND}\nThat is all.",
        f"Sure!\n\n**shop/prices.py**\n{MEND}".replace("\n", "\r\n"),
        MENDED.text,
        f"Here it is:\n```diff\n{MENDED.text}```\n",
    ],
)
def test_an_answer_is_read_in_each_of_its_forms(task: Task, answer: str) -> None:
    assert ChatPrompt(task).patch(answer).plain.text == MENDED.plain.text


def test_blocks_may_edit_one_file_twice_create_files_and_end_without_a_newline(task: Task) -> None:
    answer = (
        f"shop/prices.py\n{MEND}\n<<<<<<< SEARCH\ndef net(price):\n=======\ndef net(price: float):\n>>>>>>> REPLACE\n"
        "shop/new.py\n<<<<<<< SEARCH\n=======\nX = 1\n>>>>>>> REPLACE\n"
        "shop/unrelated.py\n<<<<<<< SEARCH\n    return 1\n=======\n    return 2\n>>>>>>> REPLACE\n"
    )
    patch = ChatPrompt(task).patch(answer)
    assert patch is not None
    assert {file.path: [text for _, text in file.added] for file in patch.files} == {
        "shop/prices.py": ["def net(price: float):", "    return price / RATE"],
        "shop/new.py": ["X = 1"],
        "shop/unrelated.py": ["    return 2"],
    }


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I do not know.",
        "shop/prices.py\n<<<<<<< SEARCH\n    return price + RATE\n=======\n    return 1\n>>>>>>> REPLACE",  # not there
        "shop/missing.py\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE",
        MEND,  # of no file
        "shop/prices.py\n<<<<<<< SEARCH\n    return price * RATE\n=======\n",  # cut off
        "/etc/passwd\n<<<<<<< SEARCH\nroot\n=======\nroot2\n>>>>>>> REPLACE",
        "../outside.py\n<<<<<<< SEARCH\n=======\nx\n>>>>>>> REPLACE",
        "shop\n<<<<<<< SEARCH\nx\n=======\ny\n>>>>>>> REPLACE",
    ],
)
def test_an_answer_that_edits_nothing_that_is_there_cannot_be_read(task: Task, answer: str) -> None:
    found = ChatPrompt(task).patch(answer)
    assert found is None or "outside" in answer
    if found is not None:
        with pytest.raises(ValueError, match="leaves the repository"):
            _ = found.files


@pytest.mark.parametrize("repeated", ["<<<<<<< SEARCH\n", "<<<<<<< SEARCH\n=======\n", "=======\n>>>>>>> REPLACE\n"])
def test_an_answer_that_repeats_itself_is_read_in_linear_time(task: Task, repeated: str) -> None:
    started = time.process_time()
    assert ChatPrompt(task).patch(f"shop/prices.py\n<<<<<<< SEARCH\n{repeated * 20_000}") is None
    assert ChatPrompt(task).patch(f"{repeated * 20_000}\n") is None
    assert time.process_time() - started < 10, "it grew with the cube of the answer: 500 repetitions took minutes"
