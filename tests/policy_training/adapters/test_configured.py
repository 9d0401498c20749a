"""A reward named by arguments or variables, what adapters convert, and the warning about versions."""

from __future__ import annotations

import asyncio
import importlib.metadata
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts.packages import CONTRACTS
from contracts.task_folder import variables

from regrade.datasets.errors import UserError
from regrade.policy_training.adapters import configured, harbor, openrlhf, verl, versions
from regrade.policy_training.adapters.configured import RewardSettings, UnscoredError, configured_verdicts, value_of
from regrade.policy_training.adapters.verdicts import Answer, Verdict
from regrade.policy_training.adapters.working_trees import verdict_of_tree

FIX = "library.py\n<<<<<<< SEARCH\n    return items[2]\n=======\n    return items[1]\n>>>>>>> REPLACE\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, evidence: Path) -> Iterator[Path]:
    """Its variables are set, and the scorer that they open is closed."""
    folder = tmp_path_factory.mktemp("configured")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(folder).items():
            patch.setenv(name, value)
        patch.setenv("REGRADE_CACHE", str(evidence))
        yield folder
        for verdicts in configured._OPEN.values():
            verdicts.scorer.close()
        configured._OPEN.clear()


def test_arguments_come_before_variables() -> None:
    environment = {"REGRADE_TASKS": "a.jsonl", "REGRADE_REWARD": "tests", "REGRADE_WORKERS": "2"}
    settings = RewardSettings.of({"tasks": "b.jsonl", "split": None}, environment)
    assert settings == RewardSettings("b.jsonl", "tests", None, 2, "auto")


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ({}, {"REGRADE_REWARD": "tests"}, "no tasks for the reward: give the argument 'tasks', or set REGRADE_TASKS"),
        ({"tasks": "a.jsonl"}, {}, "set REGRADE_REWARD in the environment of every worker"),
        ({"task": "a.jsonl"}, {}, "unknown setting 'task'"),
        ({"tasks": "a", "reward": "tests", "workers": "two"}, {}, "is 'two': give a number"),
        ({"tasks": "a", "reward": "tests", "workers": "0"}, {}, "is '0': give a number of at least 1"),
    ],
)
def test_wrong_settings_are_one_clear_error(
    arguments: dict[str, object], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        RewardSettings.of(arguments, environment)


@pytest.mark.usefixtures("folder")
def test_a_process_opens_equal_settings_once() -> None:
    verdicts = configured_verdicts()
    assert configured_verdicts(workers=1) is verdicts
    assert list(verdicts.tasks) == ["second"]


@pytest.mark.usefixtures("folder")
def test_verls_function_has_the_same_keys_for_every_answer() -> None:
    def scored(answer: str) -> dict[str, float]:
        row = {"extra_info": {"task_id": "second"}, "solution_str": answer, "ground_truth": None}
        return asyncio.run(verl.compute_score(data_source="regrade", **row))

    fixed, malformed = scored(FIX), scored("No.")
    assert fixed.keys() == malformed.keys()
    assert fixed["score"] > 0.9
    assert (fixed["tests"], fixed["resolved"], fixed["malformed"]) == (1.0, 1.0, 0.0)
    assert malformed["score"] == 0.0
    assert math.isnan(malformed["tests"]), "it was not executed"
    verdict = asyncio.run(configured_verdicts().of_one(Answer("second", text=FIX)))
    assert verdict.components.keys() <= set(configured_verdicts().component_names)


def test_a_row_without_a_task_is_refused() -> None:
    with pytest.raises(UserError, match="extra_info has no 'task_id', and ground_truth is 7"):
        verl.task_of_row(7, {})


@pytest.mark.usefixtures("folder")
def test_openrlhf_passes_prompt_and_answer_as_one_text() -> None:
    prompt = f"<|im_start|>user\nLike this:\n{FIX}<|im_end|>\n<|im_start|>assistant\n"
    result = openrlhf.reward_func([f"{prompt}No.<|im_end|>"], [prompt], ["second"])
    assert result["rewards"] == [0.0], "the patch in the prompt is not the answer"
    assert openrlhf.answer_in(f"{prompt}{FIX}<|im_end|>\n</s>", prompt) == FIX
    assert openrlhf.answer_in(f"{prompt[20:]}No.", prompt) == "No.", "of a prompt that was cut from the left"


def test_a_working_tree_is_judged_by_its_difference(folder: Path, tmp_path: Path) -> None:
    tree = tmp_path / "app"
    shutil.copytree(folder / "library", tree)
    (tree / ".git").mkdir()
    (tree / ".git" / "config").write_text("[core]\n\tfsmonitor = false\n")
    unchanged = verdict_of_tree(configured_verdicts(), "second", tree)
    assert "no_op" in unchanged.flags
    (tree / "library.py").write_text((tree / "library.py").read_text().replace("items[2]", "items[1]"))
    out = tmp_path / "logs" / "reward.json"
    assert harbor.main(["second", str(tree), str(out)]) == 0
    assert '"resolved": 1.0' in out.read_text()
    with pytest.raises(UserError, match="no folder"):
        verdict_of_tree(configured_verdicts(), "second", tmp_path / "nothing")


def test_harbor_has_no_file_of_an_unscored_answer(tmp_path: Path) -> None:
    out = tmp_path / "reward.json"
    out.write_text('{"reward": 1.0}')
    assert not harbor.write_reward(Verdict(value=None, cause="the daemon died"), out)
    assert not out.exists()


def test_a_trainer_without_unscored_gets_an_error() -> None:
    with pytest.raises(UnscoredError, match="task 'second' could not be scored: the daemon died"):
        value_of(Verdict(value=None, cause="the daemon died"), "second")


def test_an_untested_version_is_named_beside_the_tested_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", lambda _: "2.0.0")
    with pytest.warns(UserWarning, match=r"verl 2\.0\.0 is installed.* written for verl>=0\.9\.1,<0\.10"):
        versions.warn_if_untested("verl")


def test_the_tested_ranges_are_those_of_the_contracts() -> None:
    pinned = {requirement.split("==")[0]: requirement.split("==")[1] for contract in CONTRACTS
              for requirement in (*contract.requirements, *contract.without_dependencies) if "==" in requirement}  # fmt: skip
    pinned["trl"] = importlib.metadata.version("trl")
    assert pinned.keys() == versions.WRITTEN_FOR.keys()
    for package, number in pinned.items():
        assert versions.SpecifierSet(versions.WRITTEN_FOR[package]).contains(number), package
