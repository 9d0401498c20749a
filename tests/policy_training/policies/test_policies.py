"""Policies: what they propose, and that no real one sees a reference."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Sampling
from regrade.datasets.tasks import Task
from regrade.policy_training.loading import load_policy
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import LanguageModel, check_model, load_model
from regrade.policy_training.policies.scripted import NoOp, Reference
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.policy_training.trainers.sft import demonstrations, train_sft

SWEEP = [Sampling(0.0, 1), Sampling(1.0, 3)]


def counted(rollouts: list[Rollout]) -> Counter[tuple[str, float]]:
    return Counter((rollout.task_id, rollout.temperature) for rollout in rollouts)


WANTED = Counter({("second", 0.0): 1, ("second", 1.0): 3, ("add", 0.0): 1, ("add", 1.0): 3})


def test_scripted_policies_propose_nothing_and_the_reference(tasks: list[Task]) -> None:
    nothing = list(NoOp().propose(tasks, SWEEP, seed=0))
    assert counted(nothing) == WANTED
    assert all(rollout.patch.is_empty for rollout in nothing)
    known = Reference.of(tasks)
    hidden = [task.without_reference() for task in tasks]
    answers = list(known.propose(hidden, SWEEP, seed=0))
    assert counted(answers) == WANTED
    references = {task.id: task.reference for task in tasks}
    assert all(rollout.patch == references[rollout.task_id] for rollout in answers)


def test_a_task_without_reference_is_a_user_error_for_the_reference_policy(tasks: list[Task]) -> None:
    policy = Reference.of([tasks[0].without_reference()])
    with pytest.raises(UserError, match="'second' has no reference patch"):
        list(policy.propose(tasks[:1], SWEEP, seed=0))


def test_the_model_answers_every_task_at_every_temperature(language_model: LanguageModel, tasks: list[Task]) -> None:
    done: list[tuple[int, int]] = []
    policy = ModelPolicy(language_model, "tiny", progress=lambda *counts: done.append(counts))
    rollouts = list(policy.propose(tasks, SWEEP, seed=0))
    assert counted(rollouts) == WANTED
    assert done == [(1, 2), (2, 2)]
    assert all(1 <= rollout.tokens <= 40 and rollout.seconds > 0 for rollout in rollouts)
    assert all(rollout.patch == Patch("") for rollout in rollouts if not rollout.well_formed)


def test_answers_depend_on_the_seed_and_on_nothing_that_came_before(
    language_model: LanguageModel, tasks: list[Task]
) -> None:
    def answers(tasks: list[Task], seed: int) -> dict[tuple[str, float, int], str]:
        rollouts = ModelPolicy(language_model, "tiny").propose(tasks, SWEEP, seed)
        return {(r.task_id, r.temperature, r.sample): r.completion for r in rollouts}

    whole = answers(tasks, 0)
    assert answers(tasks, 0) == whole
    assert answers(tasks, 1) != whole
    # a resumed run, which has the first task already, repeats the second's answers
    second = answers(tasks[1:], 0)
    assert second == {key: text for key, text in whole.items() if key[0] == tasks[1].id}


def test_the_prompt_does_not_depend_on_the_reference(language_model: LanguageModel, tasks: list[Task]) -> None:
    policy = ModelPolicy(language_model, "tiny")
    other = [replace(task, reference=Patch("something else")) for task in tasks]
    first, second = (list(policy.propose(given, SWEEP, seed=0)) for given in (tasks, other))
    assert [r.completion for r in first] == [r.completion for r in second]


@pytest.mark.slow
def test_a_saved_policy_gives_the_reference_that_it_learned(
    language_model: LanguageModel, tasks: list[Task], tmp_path: Path
) -> None:
    train_sft(
        language_model, demonstrations(tasks), SFTSettings(learning_rate=1e-2, batch_size=2),
        out=tmp_path / "trainer", budget=Budget(steps=40), seed=0,
    )  # fmt: skip
    folder = language_model.save(tmp_path / "mended")
    rollouts = list(load_policy(str(folder), device="cpu").propose(tasks, [Sampling(0.0, 1)], seed=0))
    assert {rollout.task_id: rollout.patch for rollout in rollouts} == {task.id: task.reference for task in tasks}
    assert {rollout.policy for rollout in rollouts} == {"mended"}


def test_policies_by_name(tasks: list[Task]) -> None:
    assert isinstance(load_policy("no-op"), NoOp)
    assert load_policy("reference", tasks) == Reference.of(tasks)


def test_a_folder_without_model_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_weights_that_are_cut_off_are_a_user_error(language_model: LanguageModel, tmp_path: Path) -> None:
    weights = language_model.save(tmp_path / "model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cannot be loaded: .*file not fully covered"):
        load_model(str(tmp_path / "model"), device="cpu")


def test_a_folder_of_a_run_names_its_checkpoint(tmp_path: Path) -> None:
    for name in ("checkpoints/sft-2", "checkpoints/sft"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(UserError, match=f"give its checkpoint, such as {tmp_path}/checkpoints/sft$"):
        check_model(str(tmp_path))
    check_model(str(tmp_path / "checkpoints" / "sft"))
    with pytest.raises(UserError, match="there is no such folder"):
        check_model(str(tmp_path / "checkpoints" / "stf"))
    check_model("some/model")  # the hub may have it


def test_a_model_that_does_more_to_its_logits_is_a_user_error(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, final_logit_softcapping=30.0,
    )  # fmt: skip
    folder = LanguageModel("capped", Gemma2ForCausalLM(config), tokenizer).save(tmp_path / "capped")
    with pytest.raises(UserError, match="final_logit_softcapping"):
        load_model(str(folder), device="cpu")


def test_saving_over_an_older_checkpoint_leaves_nothing_else_behind(
    language_model: LanguageModel, tmp_path: Path
) -> None:
    folder = language_model.save(tmp_path / "checkpoint")
    (folder / "stale").touch()
    assert language_model.save(folder) == folder
    assert not (folder / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
