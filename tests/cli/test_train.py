"""`regrade train`: a few real steps of a tiny model, their log and checkpoint; `make demo-quick` trains the embedded one."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("trl", reason="needs the extra `train`")

from regrade.cli.train import vain_note  # noqa: E402
from regrade.evaluators.storage.run import Run  # noqa: E402
from tests.policy_training.conftest import tokenizer, untrained  # noqa: E402, F401 (a fixture)


@pytest.fixture
def regrade_with_a_tiny_model(regrade, monkeypatch, tokenizer, tmp_path):  # noqa: F811
    """In the precision of a large one."""
    monkeypatch.setenv("REGRADE_PRECISION", "bfloat16")
    tiny = untrained(tokenizer).save(tmp_path / "tiny")
    return lambda *arguments: regrade(*arguments, *(["--model", tiny] if arguments[0] == "train" else []))


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "ppo"])
def test_a_few_steps_write_a_log_and_a_checkpoint_to_evaluate(regrade_with_a_tiny_model, tasks, tmp_path, algorithm):
    regrade = regrade_with_a_tiny_model
    run, own = tmp_path / "run", tmp_path / "own.py"
    own.write_text(
        "from regrade.rewards import Diff, Score, builds, reward, style, tests\nprint('of the file')\n\n\n"
        "@reward\ndef loud(diff: Diff) -> Score:\n    print('of the reward')\n    return Score(1.0)\n\n\n"
        "mine = (0.5 * tests + 0.4 * style + 0.1 * loud).only_if(builds)\n"
    )
    what, options = algorithm, ["--limit", "2", "--samples", "2", "--steps", "2", "--tasks", tasks]
    if algorithm == "grpo":  # an agent of three turns
        options += ["--turns", "3", "--shaping", "measured", "--turn-cost", "0.01"]
    if algorithm == "rloo":  # by a recipe, in which options replace two values
        what = tmp_path / "recipe.toml"
        what.write_text(
            f'algorithm = "rloo"\ntasks = "{tasks}"\nlimit = 2\nsteps = 50\nreward = "own.py:mine"\nseed = 4\n'
            "[settings]\nsamples_per_prompt = 6\nbeta = 0.1\n"
        )
        options = ["--samples", "2", "--steps", "2"]
    trained = regrade("train", what, *options, "--out", run)
    assert trained.code == 0, trained.err
    checkpoint = run / "checkpoints" / algorithm
    assert trained.out.strip() == str(checkpoint), "what a reward prints goes elsewhere"
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["phases_done"] == [algorithm]
    if algorithm == "rloo":
        settings, budget = manifest["configuration"]["settings"], manifest["configuration"]["budget"]
        assert (settings["samples_per_prompt"], settings["beta"], budget["steps"]) == (2, 0.1, 2)
        assert manifest["configuration"]["seed"] == 4
    recorded = manifest["configuration"]["reward"]
    own_reward = ("(0.5 * tests + 0.4 * style + 0.1 * loud).only_if(builds)", None)
    assert (recorded["reward"], recorded["breakage"]) == (own_reward if algorithm == "rloo" else ("tests", -1.2))
    logged = [json.loads(line) for line in (run / "training" / f"{algorithm}.jsonl").read_text().splitlines()]
    assert {row["step"] for row in logged if "loss" in row} == {1, 2}
    assert ("turns" in logged[0]) == (checkpoint / "agent.json").is_file() == (algorithm == "grpo")

    judged = regrade("evaluate", checkpoint, "--tasks", tasks, "--limit", "2", "--out", run, "--name", "rl", "--json")
    assert judged.code == 0, judged.err
    assert json.loads(judged.out)["fix_and_clean"]["n_tasks"] == 2


def test_sft_needs_references(regrade, tasks, tmp_path):
    lines = [json.loads(line) for line in tasks.read_text().splitlines()]
    for line in lines:
        del line["reference"]
    tasks.write_text("\n".join(json.dumps(line) for line in lines))
    outcome = regrade("train", "sft", "--tasks", tasks, "--steps", "1", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "has no reference patch" in outcome.err.splitlines()[-1]


def test_rewards_that_cannot_train_are_refused_before_a_folder_is_made(regrade, tasks, tmp_path):
    run, misspelt, constant = tmp_path / "run", tmp_path / "misspelt.toml", tmp_path / "constant.py"
    misspelt.write_text('algorithm = "grpo"\n[settings]\nlerning_rate = 1e-5\n')
    constant.write_text(
        "from regrade.rewards import Score, TestRun, reward\n\n\n"
        "@reward\ndef always_1(run: TestRun) -> Score:\n    return Score(1.0, why=f'{len(run.outcomes)} tests')\n"
    )
    common = ["--tasks", tasks, "--steps", "1", "--out", run]
    for arguments, said in [
        (["sft", "--reward", "tests"], "leave out --reward"),
        (["grpo", "--reward", "testz"], "unknown reward 'testz'"),
        (["grpo", "--reward", "learned"], "names no reward model"),
        (["grpo", "--turn-cost", "0.1"], "pay the steps of an agent: give --turns too"),
        (["sft", "--turns", "3", "--test-cost", "0.1"], "sft pays no steps"),
        (["ppo", "--generation", "trl"], "ppo has no choice of --generation"),
        (["rloo", "--turns", "3", "--shaping", "seen"], "leave out --shaping, or use grpo"),
        (
            ["grpo", "--turns", "3", "--shaping", "seen", "--generation", "trl"],
            "leave out --shaping or --generation trl",
        ),
        (["rloo", "--turns", "3", "--generation", "trl"], "masks no observations"),
        (["reinforce", "--turns", "3", "--shaping", "seen"], "leave out --shaping, or use grpo"),
        (["grop"], "unknown algorithm 'grop' (did you mean grpo?)"),
        (["gone.toml"], "recipe 'gone.toml' cannot be read"),
        ([misspelt], "misspelt.toml: unknown key \"lerning_rate\" in [settings] (did you mean 'learning_rate'?)"),
        (["grpo", "--reward", f"{constant}:always_1"], "reward 'always_1' is 1 on each of 100 generated pieces"),
    ]:
        outcome = regrade("train", *arguments, *common)
        assert (outcome.code, said in outcome.err) == (2, True), outcome.err
    assert not run.exists()


def test_a_reward_that_cannot_train_and_a_folder_without_a_model_are_refused_before_tests_are_run(
    regrade, tasks, tmp_path
):
    unmeasured, rewards = tmp_path / "unmeasured.jsonl", tmp_path / "constant.py"
    found = [json.loads(line) for line in tasks.read_text().splitlines()]
    for task in found:
        del task["pass_to_pass"]
    unmeasured.write_text("".join(json.dumps(task) + "\n" for task in found))
    rewards.write_text(
        "from regrade.rewards import Score, TestRun, reward\n\n\n"
        "@reward\ndef odd(run: TestRun) -> Score:\n    return Score(float('nan'))\n"
    )
    given = ("--tasks", unmeasured, "--steps", "1", "--out", tmp_path / "run", "--reward", f"{rewards}:odd")
    outcome = regrade("train", "grpo", *given)
    assert outcome.is_refusal("Score(nan) is outside [0, 1]: pass a number from 0 to 1")
    assert "unchanged tests" not in outcome.err
    (tmp_path / "empty").mkdir()
    outcome = regrade("train", "grpo", *given[:-2], "--model", tmp_path / "empty")
    assert outcome.is_refusal("the folder has no config.json; give the folder of a checkpoint")
    assert "unchanged tests" not in outcome.err


def test_a_source_without_tasks_is_refused(regrade, tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    outcome = regrade("train", "grpo", "--tasks", tmp_path / "none.jsonl", "--steps", "1", "--out", tmp_path / "run")
    assert outcome.is_refusal("none.jsonl")
    assert not (tmp_path / "run").exists()


def test_nothing_is_trained_on_the_held_out_tasks(regrade, tmp_path):
    outcome = regrade("train", "grpo", "--split", "held_out", "--steps", "1", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "nothing is trained on them" in outcome.err
    assert not (tmp_path / "run").exists()


def with_splits(tasks, path, names):
    """The tasks of the file, in turn in these splits."""
    listed = [json.loads(line) for line in tasks.read_text().splitlines()]
    lines = (json.dumps({**task, "split": names[place % len(names)]}) + "\n" for place, task in enumerate(listed))
    path.write_text("".join(lines))
    return path


def test_a_set_with_splits_is_learned_from_in_its_split(regrade_with_a_tiny_model, tasks, tmp_path):
    own = with_splits(tasks, tmp_path / "own.jsonl", ["tests_only", "held_out"])
    learning, judged = (sum(f'"{name}"' in line for line in own.open()) for name in ("tests_only", "held_out"))
    given = ("--tasks", own, "--steps", "1", "--out", tmp_path / "run")
    refused = regrade_with_a_tiny_model("train", "sft", *given)
    assert refused.is_refusal("no task in the split 'demonstrations'", "--split, of tests_only")
    trained = regrade_with_a_tiny_model("train", "grpo", "--samples", "2", *given)
    assert trained.code == 0, trained.err
    assert f"learns from the {learning} tasks of the split 'tests_only'" in trained.err
    outcome = regrade_with_a_tiny_model("evaluate", "no-op", "--tasks", own, "--out", tmp_path / "judged")
    assert "judges the tasks of all splits (held_out, tests_only)" in outcome.err
    rows = Run.open(tmp_path / "judged").evaluation("no-op").read_text().splitlines()
    assert len(rows) == learning + judged


def test_a_training_that_learned_nothing_says_so(tmp_path):
    run = Run(tmp_path)
    same = {"reward/groups": 3.0, "reward/different_groups": 0.0, "reward/tests/mean": 0.0}
    for step, malformed in enumerate((1.0, 0.5), 1):
        run.log("grpo", step, 1.0, malformed=malformed, **same)
        run.log("ppo", step, 1.0, **same)  # a critic is its baseline, so equal values teach too
    assert "at each of 6 times a task was tried, all attempts were paid the same (75% of them" in vain_note(run, "grpo")
    assert vain_note(run, "ppo") == vain_note(run, "sft") == ""
    run.log("grpo", 3, 1.0, **same | {"reward/different_groups": 1.0})
    assert vain_note(run, "grpo") == ""
