"""Which tasks the main job and a study take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.policy_training.demo.settings import FULL, QUICK, DemoSettings
from regrade.policy_training.environments.attempts import ScoredAnswer
from regrade.policy_training.recipe.settings import Recipe
from regrade.policy_training.recipe.tasks import choose_tasks, informative_tasks, spread

SMALL = Recipe(max_prompt_tokens=1000, validation=2, held_out=2)
COUNTS = {"demonstrations": 3, "tests_only": 4}


def tasks_of(make_task: Callable[[str], Task], counts: dict[str, int]) -> list[Task]:
    """So many tasks of each repository; every function has two."""
    one = make_task("second")
    assert one.target is not None
    return [
        replace(one, id=f"{name}-{number}", repository=name, target=replace(one.target, function=f"f{number // 2}"))
        for name, count in counts.items()
        for number in range(count)
    ]


def test_the_same_tasks_are_chosen_in_any_order(make_task: Callable[[str], Task]) -> None:
    pool = tasks_of(make_task, {"a": 6, "b": 8})
    chosen = choose_tasks(lambda _split: pool, lambda text: list(text.encode()), SMALL, **COUNTS)
    again = choose_tasks(lambda _split: pool[::-1], lambda text: list(text.encode()), SMALL, **COUNTS)
    assert chosen == again
    assert [len(part) for part in (chosen.demonstrations, chosen.tests_only, chosen.validation)] == [3, 4, 2]
    assert chosen.digests() == again.digests()


def test_functions_come_before_their_second_tasks(make_task: Callable[[str], Task]) -> None:
    pool = tasks_of(make_task, {"a": 6, "b": 4})
    functions = [(task.repository, task.target.function) for task in spread(pool, 10) if task.target]
    assert len(set(functions[:5])) == 5
    assert sorted(functions[:5]) == sorted(functions[5:])


def test_only_the_largest_repositories_if_so_asked(make_task: Callable[[str], Task]) -> None:
    pool = tasks_of(make_task, {"a": 2, "b": 9, "c": 5})
    chosen = choose_tasks(
        lambda _split: pool, lambda text: list(text.encode()), replace(SMALL, repositories=2), **COUNTS
    )
    assert {task.repository for task in chosen.tests_only} <= {"b", "c"}
    with pytest.raises(UserError, match="'demonstrations' has 2 tasks"):
        choose_tasks(
            lambda _split: pool[:2], lambda text: list(text.encode()), replace(SMALL, repositories=1), **COUNTS
        )


def test_long_prompts_are_left_out_and_too_few_tasks_are_an_error(make_task: Callable[[str], Task]) -> None:
    pool = tasks_of(make_task, {"a": 6})
    with pytest.raises(UserError, match="'demonstrations' has 0 tasks with a prompt of at most 5 tokens, and 3 are"):
        choose_tasks(
            lambda _split: pool, lambda text: list(text.encode()), replace(SMALL, max_prompt_tokens=5), **COUNTS
        )


@pytest.mark.parametrize("settings", [FULL, QUICK], ids=["full", "quick"])
def test_the_settings_fit_together(settings: DemoSettings) -> None:
    assert settings.grpo.prompts_per_step * settings.grpo.steps_per_generation <= settings.tests_only
    assert settings.task_shares <= settings.tests_only
    assert settings.scripted <= settings.held_out
    assert settings.grpo.samples_per_prompt > 1
    assert min(settings.temperatures) > 0


def test_the_verdict_has_the_tasks_and_samples_that_it_needs() -> None:
    assert FULL.held_out >= 300  # tasks narrow an interval more than attempts at them do
    assert FULL.held_out_samples >= 2


def test_tasks_that_no_attempt_moved_are_not_tried_again(make_task: Callable[[str], Task]) -> None:
    tasks = tasks_of(make_task, {"a": 4})
    names = [task.id for task in tasks]
    rewards = [(names[0], 0.0), (names[0], 0.0), (names[1], 0.0), (names[1], -0.6), (names[2], 1.0)]
    tried = [ScoredAnswer(name, "prompt", "answer", reward, reward == 1.0) for name, reward in rewards]
    assert [task.id for task in informative_tasks(tasks, tried, 2)] == names[1:3]
    assert informative_tasks(tasks, tried, 3) == list(tasks), "too few are left for a batch"
    lost = [*tried, ScoredAnswer(names[3], "prompt", "answer", -0.6, False)]
    assert [task.id for task in informative_tasks(tasks, lost, 2)] == names[1:3], "as many others as were fixed"
    assert [task.id for task in informative_tasks(tasks, lost, 3)] == names[1:]
