"""Recipes: the shipped ones, what is refused and in which words, and what the demo and the study take from them."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.cli.training_recipe import base_recipe
from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Sampling
from regrade.policy_training.cascade.settings import CascadeSettings
from regrade.policy_training.demo import settings as demo
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.environments.step_rewards import StepCosts, StepRewards
from regrade.policy_training.recipe.phases import agent_format
from regrade.policy_training.recipe_files import SHIPPED, TrainingRecipe, read_recipe, shipped_recipes
from regrade.policy_training.study import settings as study
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import ExpertIterationSettings, OnlineSettings, PPOSettings, SFTSettings
from regrade.policy_training.training_plan import TrainingPlan

ROOT = Path(__file__).resolve().parents[2]
WHOLE = """\
algorithm = "ppo"
model = "start"
tasks = "mine.jsonl"
limit = 5
steps = 30
minutes = 10
save_every = 15
reward = "own.py:mine"
seed = 3

[settings]
learning_rate = 1e-5
epochs = 2

[agent]
max_tokens = 300

[agent.limits]
turns = 4

[step_rewards]
shaping = "seen"

[step_rewards.costs]
turn = 0.01

[cascade]
charge = 1
severity = 0.1
model = "judge"
"""
OWN = "from regrade.rewards import tests\n\nmine = 1 * tests\n"


def test_every_key_reaches_the_plan_and_paths_are_those_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(WHOLE)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "mine.jsonl").touch()
    (tmp_path / "judge").mkdir()
    recipe = read_recipe(tmp_path / "recipe.toml")
    assert recipe == TrainingRecipe(
        settings=PPOSettings(learning_rate=1e-5, epochs=2), model="start", tasks=str(tmp_path / "mine.jsonl"), limit=5,
        steps=30, minutes=10, save_every=15, reward=f"{tmp_path / 'own.py'}:mine", seed=3,
        agent=AgentFormat(EpisodeLimits(turns=4), max_tokens=300),
        step_rewards=StepRewards(costs=StepCosts(turn=0.01), shaping="seen"),
        cascade=CascadeSettings(charge=1.0, severity=0.1, model=tmp_path / "judge"),
    )  # fmt: skip
    plan = TrainingPlan.of(recipe)
    assert (plan.budget, plan.seed, plan.save_every, plan.model) == (Budget(30, 600.0), 3, 15, "start")
    assert (plan.agent, plan.step_rewards, plan.cascade) == (recipe.agent, recipe.step_rewards, recipe.cascade)
    assert plan.reward.reward.name == "mine"


def test_a_table_keeps_the_defaults_of_the_place_where_it_stands(tmp_path: Path) -> None:
    """SFT within expert iteration has a learning rate of its own; a neighbour of it that is given changes nothing."""
    path = tmp_path / "recipe.toml"
    path.write_text('algorithm = "expert-iteration"\n[settings.sft]\nfrozen = 0.5\n[settings.sampling]\nsamples = 2\n')
    default = ExpertIterationSettings()
    assert read_recipe(path).settings == replace(
        default, sft=replace(default.sft, frozen=0.5), sampling=replace(default.sampling, samples=2)
    )


REFUSED = {
    "": "the key 'algorithm' is missing; give one of sft, expert-iteration, grpo",
    'algorithm = "grop"': "algorithm is \"grop\" (did you mean 'grpo'?); give one of",
    "algorithm = ": "this is no valid TOML: ",
    f"algorithm = {'[' * 3000}{']' * 3000}": "its values are nested too deeply for a recipe",
    'algorithm = "grpo"\nstep = 1': "unknown key \"step\" (did you mean 'steps'?); known keys: agent, algorithm,",
    'algorithm = "grpo"\n[settings]\nlerning_rate = 1': (
        "unknown key \"lerning_rate\" in [settings] (did you mean 'learning_rate'?); known keys: beta, "
    ),
    'algorithm = "grpo"\nlearning_rate = 1': 'unknown key "learning_rate", which belongs into [settings]; known keys',
    'algorithm = "grpo"\nsteps = 0': "steps must be an integer of at least 1 and at most 1,000,000; found 0",
    'algorithm = "grpo"\nsteps = true': "steps must be an integer of at least 1 and at most 1,000,000; found true",
    'algorithm = "grpo"\nminutes = inf': "minutes must be a number above 0 and at most 10,000,000; found Infinity",
    'algorithm = "sft"\nsplit = "held_out"': "split is 'held_out'; give one of demonstrations, tests_only, validation",
    'algorithm = "sft"\nreward = "tests"': "reward is 'tests', but sft executes nothing; leave it out",
    'algorithm = "ppo"\ndemonstrations = "a"': "demonstrations are for sft, not for ppo; leave them out",
    'algorithm = "ppo"\n[settings]\nlearning_rate = -1': "settings.learning_rate is -1.0; give a finite number above 0",
    'algorithm = "ppo"\n[settings]\nlearning_rate = nan': "settings.learning_rate is nan; give a finite number above 0",
    'algorithm = "ppo"\n[settings]\nlearning_rate = "1"': 'settings.learning_rate must be a number; found "1"',
    'algorithm = "ppo"\n[settings]\nepochs = 1.5': "settings.epochs must be an integer; found 1.5",
    'algorithm = "grpo"\n[settings]\nloss_type = "dapa"': (
        "settings.loss_type is 'dapa' (did you mean 'dapo'?); give one of dapo, grpo, dr_grpo, bnpo, cispo"
    ),
    'algorithm = "rloo"\n[settings]\nloss_type = "dapo"': (
        "settings.loss_type is an option of grpo, not of rloo; leave it out"
    ),
    'algorithm = "expert-iteration"\n[settings.sft]\nfrozen = 2': "settings.sft.frozen is 2.0; give a share between",
    'algorithm = "grpo"\nagent = 3': "agent is 3, but it is a table; give [agent] and its keys",
    'algorithm = "grpo"\n[agent.limits]\nturns = 0': "agent.limits.turns is 0; give a number above 0",
    'algorithm = "grpo"\n[step_rewards.costs]\nturn = -1': "step_rewards.costs.turn is -1.0; give a finite number",
    'algorithm = "grpo"\ncascade = { charge = -1 }': "cascade.charge is -1.0; give a finite number of at least 0",
    'algorithm = "grpo"\ncascade = { model = "m" }': "cascade.severity is None, but a model predicts whether",
    'algorithm = "sft"\ncascade = { charge = 1 }': "cascade is for policies that learn from their own attempts, not for",
}


def test_the_mark_that_some_editors_put_before_a_text_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b'\xef\xbb\xbfalgorithm = "sft"\n')
    assert read_recipe(tmp_path / "r.toml").algorithm == "sft"


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:60])
def test_a_wrong_recipe_is_refused_in_one_line_with_the_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {REFUSED[text]}")
    assert "\n" not in message


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"recipe 'demo-grpoo.toml' cannot be read: No such file .*; shipped ones: demo-"
    ):
        read_recipe("demo-grpoo.toml")
    (tmp_path / "r.toml").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"r\.toml: this is no valid TOML"):
        read_recipe(tmp_path / "r.toml")
    (tmp_path / "r.toml").write_text('algorithm = "sft"')
    with pytest.raises(UserError, match="no limit for the training: give `steps=`"):
        TrainingPlan.of(read_recipe(tmp_path / "r.toml"))
    with pytest.raises(UserError, match=r"unknown algorithm 'grop' \(did you mean grpo\?\): choose one of sft, "):
        base_recipe("grop")


DEMO = [f"demo-{name}.toml" for name in ("agent-sft", "expert-iteration", "grpo", "sft")]


def test_every_shipped_recipe_is_a_plan() -> None:
    assert shipped_recipes() == [*DEMO, "gpt-oss-20b.toml"]
    for name in shipped_recipes():
        assert TrainingPlan.of(read_recipe(name)).budget.steps


def test_gpt_oss_20b_fits_on_its_gpu_on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of docs/gpt-oss.md: of 80 GB as shipped, and of 141 GB with twice the tokens."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    paper = importlib.import_module("gpt_oss")
    recipe = read_recipe("gpt-oss-20b.toml")
    settings, agent = recipe.settings, recipe.agent
    assert isinstance(settings, OnlineSettings)
    assert agent is not None
    assert (recipe.lora_rank, settings.prompts_per_pass) == (16, 1)
    rows = settings.samples_per_prompt
    page = (ROOT / "docs" / "gpt-oss.md").read_text()
    for tokens, gigabytes in ((agent.max_tokens, 80), (2 * agent.max_tokens, 141)):
        step = paper.Step(prompt=2048, answer=tokens, rows=rows, rank=recipe.lora_rank, rows_of_a_pass=rows)
        need = paper.peak(paper.memory(paper.Shape(), step))
        assert need < 0.97 * gigabytes * 1e9
        assert f"| {need / 2**30:.1f} of {gigabytes * 1e9 / 2**30:.{int(gigabytes == 80)}f} ({gigabytes} GB) |" in page


def test_the_phases_of_the_demo_and_the_study_are_shipped_recipes() -> None:
    recipes = {name: read_recipe(name) for name in DEMO}
    for full in (demo.FULL, study.FULL):
        assert full.sft == recipes["demo-sft.toml"].settings
        assert full.sft_steps == recipes["demo-sft.toml"].steps
        assert full.agent_sft == recipes["demo-agent-sft.toml"].settings
        assert full.agent_sft_steps == recipes["demo-agent-sft.toml"].steps
        assert full.expert_iteration == recipes["demo-expert-iteration.toml"].settings
        assert full.grpo == recipes["demo-grpo.toml"].settings
        agents = [recipe.agent for name, recipe in recipes.items() if name != "demo-sft.toml"]
        assert agents == [agent_format(full)] * 3
    assert demo.FULL.round_steps == recipes["demo-expert-iteration.toml"].steps
    assert demo.FULL.grpo_steps == recipes["demo-grpo.toml"].steps
    assert (SHIPPED / "demo-grpo.toml").is_file()


def test_the_recorded_settings_of_the_demo_have_not_changed() -> None:
    """The run of docs/demo.md with seed 1 was made with these; its first one and those of docs/study.md drew 8 answers."""
    full = demo.FULL
    assert full.sft == SFTSettings(learning_rate=1.5e-4, batch_size=4, frozen=0.5)
    assert full.agent_sft == SFTSettings(learning_rate=1e-4, batch_size=4, frozen=0.5)
    assert full.expert_iteration == ExpertIterationSettings(
        sampling=Sampling(1.0, 6), lessons="traces", sft=SFTSettings(learning_rate=1e-4, batch_size=4, frozen=0.5)
    )
    assert full.grpo == OnlineSettings(
        algorithm="grpo", learning_rate=6e-5, prompts_per_step=4, samples_per_prompt=6, steps_per_generation=12,
        temperature=1.0, frozen=0.5, credit="step",
    )  # fmt: skip
    assert full.grpo_step_rewards == StepRewards(costs=StepCosts(refused=0.15))
    counts = (full.sft_steps, full.agent_sft_steps, full.round_steps, full.grpo_steps, full.check_every)
    assert counts == (150, 40, 60, 24, 20)
    assert (full.turns, full.test_runs, full.episode_tokens) == (6, 2, 400)
    assert (study.FULL.rounds, study.FULL.round_steps, study.FULL.grpo_steps) == (2, 60, 36)
