"""Settings of the trainers: their defaults are valid, and a value out of range is refused when they are made."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import get_args

import pytest

from regrade.cli import training_options, training_recipe
from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Sampling
from regrade.policy_training.recipe_files import SETTINGS
from regrade.policy_training.trainers.settings import (
    Algorithm,
    ExpertIterationSettings,
    OnlineSettings,
    PPOSettings,
    RewardModelSettings,
    SFTSettings,
    TrainerSettings,
    VLLMSettings,
)

REFUSED: dict[str, Callable[[], TrainerSettings | VLLMSettings]] = {
    "SFTSettings: learning_rate is 0.0; give a finite number above 0": lambda: SFTSettings(learning_rate=0.0),
    "SFTSettings: learning_rate is '1e-4'; give a finite number above 0": lambda: SFTSettings(learning_rate="1e-4"),  # type: ignore[arg-type]
    "SFTSettings: learning_rate is nan;": lambda: SFTSettings(learning_rate=math.nan),
    "SFTSettings: batch_size is 2.5; give a whole number from 1 to 1000000": lambda: SFTSettings(batch_size=2.5),  # type: ignore[arg-type]
    "SFTSettings: frozen is 1.5; give a share between 0 and 1": lambda: SFTSettings(frozen=1.5),
    "ExpertIterationSettings: answers_per_task is 0;": lambda: ExpertIterationSettings(answers_per_task=0),
    "ExpertIterationSettings: replay is -1.0;": lambda: ExpertIterationSettings(replay=-1.0),
    "ExpertIterationSettings: sampling is .* give a temperature of at least 0 and at least 1 sample": lambda: (
        ExpertIterationSettings(sampling=Sampling(0.8, 0))
    ),
    "OnlineSettings: algorithm is 'magic'; give grpo or rloo": lambda: OnlineSettings(algorithm="magic"),  # type: ignore[arg-type]
    "OnlineSettings: samples_per_prompt is 1; give a whole number of at least 2": lambda: OnlineSettings(
        algorithm="grpo", samples_per_prompt=1
    ),
    "OnlineSettings: vllm is given, and generation is 'trl'; set it to 'vllm'": lambda: OnlineSettings(
        algorithm="grpo", generation="trl", vllm=VLLMSettings()
    ),
    "VLLMSettings: mode is 'beside'; give colocate or server": lambda: VLLMSettings(mode="beside"),  # type: ignore[arg-type]
    "VLLMSettings: server_base_url is 'localhost'; give an address that begins": lambda: VLLMSettings(
        server_base_url="localhost"
    ),
    "VLLMSettings: gpu_memory_utilization is 1.2;": lambda: VLLMSettings(gpu_memory_utilization=1.2),
    "OnlineSettings: temperature is 0.0;": lambda: OnlineSettings(algorithm="rloo", temperature=0.0),
    "OnlineSettings: loss_type is 'dapa'; give dapo or grpo or dr_grpo or bnpo or cispo": lambda: OnlineSettings(
        algorithm="grpo",
        loss_type="dapa",  # type: ignore[arg-type]
    ),
    "OnlineSettings: loss_type is 'grpo', which rloo does not have; leave it out, or train by grpo": lambda: (
        OnlineSettings(algorithm="rloo", loss_type="grpo")
    ),
    "OnlineSettings: num_iterations is 2, which reinforce does not have; .* grpo or rloo": lambda: OnlineSettings(
        algorithm="reinforce", num_iterations=2
    ),
    "OnlineSettings: epsilon_high is None, and with loss_type 'cispo' .* at least 1": lambda: OnlineSettings(
        algorithm="grpo", loss_type="cispo"
    ),
    "OnlineSettings: epsilon is 1.0; give a number above 0 and below 1": lambda: OnlineSettings(
        algorithm="grpo", epsilon=1.0
    ),
    "OnlineSettings: beta is -0.1; give a finite number of at least 0": lambda: OnlineSettings(
        algorithm="rloo", beta=-0.1
    ),
    "OnlineSettings: scale_rewards is 'group', but rewards of steps": lambda: OnlineSettings(
        algorithm="grpo", credit="step", scale_rewards="group"
    ),
    "PPOSettings: kl_coef is inf;": lambda: PPOSettings(kl_coef=math.inf),
    "RewardModelSettings: preferences is 0; give a whole number from 1 to 1000000, or None": lambda: (
        RewardModelSettings(preferences=0)
    ),
    "RewardModelSettings: test_share is -0.1;": lambda: RewardModelSettings(test_share=-0.1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_value_out_of_range_is_a_user_error(message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        REFUSED[message]()


def test_settings_cannot_be_changed_and_a_changed_copy_is_checked_too() -> None:
    settings = PPOSettings()
    with pytest.raises(FrozenInstanceError):
        settings.epochs = 2  # type: ignore[misc]
    with pytest.raises(UserError, match="epochs is 0"):
        replace(settings, epochs=0)


def settings_of(
    algorithm: Algorithm, learning_rate: float | None, samples: int | None, temperature: float | None
) -> TrainerSettings:
    return training_recipe.overridden(training_recipe.defaults_of(algorithm), learning_rate, samples, temperature)


def test_the_options_of_the_command_reach_the_settings() -> None:
    assert get_args(training_options.Algorithm) == get_args(Algorithm), "the command offers every algorithm"
    assert settings_of("sft", None, None, None) == SFTSettings()
    assert settings_of("sft", 0.5, None, None) == SFTSettings(learning_rate=0.5)
    assert settings_of("expert-iteration", 0.5, 3, 0.7) == ExpertIterationSettings(
        sampling=Sampling(0.7, 3), sft=replace(ExpertIterationSettings().sft, learning_rate=0.5)
    )
    assert settings_of("expert-iteration", None, 3, 0.7) == ExpertIterationSettings(sampling=Sampling(0.7, 3))
    assert settings_of("rloo", None, 3, 0.7) == OnlineSettings(algorithm="rloo", samples_per_prompt=3, temperature=0.7)
    assert settings_of("reinforce", None, None, None) == OnlineSettings(algorithm="reinforce")
    assert settings_of("ppo", None, None, None) == PPOSettings(learning_rate=1e-5)
    assert settings_of("ppo", 0.5, 3, 0.7) == PPOSettings(learning_rate=0.5, samples_per_prompt=3, temperature=0.7)
    assert settings_of("reward-model", None, 3, 0.7) == RewardModelSettings(sampling=Sampling(0.7, 3))
    assert settings_of("expert-iteration", None, None, None) == ExpertIterationSettings(sampling=Sampling(1.0, 8))


def _rates(text: str) -> Iterator[tuple[str, str]]:
    """(algorithm, rate) of "1 for a, 2 for b, c and d"."""
    rate = ""
    for word in re.split(r", | and | for ", text):
        if word[0].isdigit():
            rate = word
        else:
            yield word, rate


def _rate(settings: TrainerSettings) -> float:
    return settings.sft.learning_rate if isinstance(settings, ExpertIterationSettings) else settings.learning_rate


def test_the_help_states_the_learning_rate_of_every_algorithm() -> None:
    named = {name: float(rate) for name, rate in _rates(training_options.RATES)}
    assert named == {name: _rate(training_recipe.defaults_of(name)) for name in get_args(Algorithm)}


def test_the_recipes_page_names_each_default_that_the_command_has_for_itself() -> None:
    differing = set()
    for name in get_args(Algorithm):
        command = training_recipe.defaults_of(name)
        keys = {"algorithm": name} if isinstance(command, OnlineSettings) else {}
        recipe = SETTINGS[name](**keys)
        differing |= {
            (name, key.name) for key in fields(command) if getattr(command, key.name) != getattr(recipe, key.name)
        }
    assert differing == {("expert-iteration", "sampling"), ("ppo", "learning_rate")}
    page = " ".join((Path(__file__).parents[3] / "docs" / "recipes.md").read_text().split())
    assert "`expert-iteration` at temperature 1, not 0.8" in page
    assert "`ppo` at the learning rate 1e-5, not 2e-5" in page


@pytest.mark.parametrize(("samples", "temperature"), [(8, None), (None, 1.0)])
def test_sft_refuses_the_options_of_sampling(samples: int | None, temperature: float | None) -> None:
    with pytest.raises(UserError, match="sft samples no attempts: leave out --samples and --temperature"):
        settings_of("sft", None, samples, temperature)


def test_a_learning_rate_of_zero_is_refused_and_not_replaced_by_the_default() -> None:
    with pytest.raises(UserError, match="learning_rate is 0"):
        settings_of("ppo", 0.0, None, None)
