"""The choice of tasks for a recipe: short prompts, many functions, the same in every run of one seed."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from regrade.datasets.errors import UserError
from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import Task
from regrade.policy_training.environments.attempts import ScoredAnswer
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.recipe.settings import Recipe


@dataclass(frozen=True)
class RecipeTasks:
    """The tasks of a recipe, by their use."""

    demonstrations: tuple[Task, ...]
    tests_only: tuple[Task, ...]
    validation: tuple[Task, ...]
    held_out: tuple[Task, ...]

    def digests(self) -> dict[str, str]:
        """Part -> SHA-256 over the ids of its tasks, for the run's manifest."""
        return {
            name: hashlib.sha256("\n".join(task.id for task in getattr(self, name)).encode()).hexdigest()[:16]
            for name in self.__dataclass_fields__
        }


def choose_tasks(
    load: Callable[[str], Sequence[Task]],
    encode: Callable[[str], list[int]],
    settings: Recipe,
    *,
    demonstrations: int,
    tests_only: int,
    seed: int = 0,
) -> RecipeTasks:
    """Choose tasks from each split. A smaller number of the same seed is the beginning of a larger one.

    Args:
        load: returns the tasks of a split by its name.
        encode: returns the token ids of a text.
        demonstrations, tests_only: numbers of tasks.
        seed: of the tasks to learn from. All seeds are validated and judged on the same tasks.

    Raises:
        UserError: a split has too few tasks with a short enough prompt.
    """

    def choose(split: str, count: int, draw: int = 0) -> tuple[Task, ...]:
        short = [task for task in load(split) if len(encode(prompt_of(task).text)) <= settings.max_prompt_tokens]
        if settings.repositories is not None:
            short = _of_largest(short, settings.repositories)
        if len(short) < count:
            raise UserError(
                f"the split {split!r} has {len(short)} tasks with a prompt of at most {settings.max_prompt_tokens} "
                f"tokens, and {count} are needed: rebuild the recipes with `regrade tasks build`"
            )
        return tuple(map(showing_a_file, spread(short, count, draw)))

    return RecipeTasks(
        choose("demonstrations", demonstrations, seed),
        choose("tests_only", tests_only, seed),
        choose("validation", settings.validation),
        choose("held_out", settings.held_out),
    )


def showing_a_file(task: Task) -> Task:
    """The task, of whose tests an agent is shown those in the files of the FAIL_TO_PASS tests, if it shows all of them.

    An agent that may run the whole suite sees all that the verdict sees, and can't break anything unnoticed.
    """
    files = tuple(dict.fromkeys(map(file_of, task.fail_to_pass)))
    return task if task.shown.tests is not None else replace(task, shown=replace(task.shown, tests=files))


def _of_largest(tasks: Sequence[Task], repositories: int) -> list[Task]:
    """The tasks of the `repositories` repositories with the most tasks."""
    counts = Counter(task.repository for task in sorted(tasks, key=lambda task: task.repository))
    kept = {name for name, _ in counts.most_common(repositories)}
    return [task for task in tasks if task.repository in kept]


def informative_tasks(tasks: Sequence[Task], answers: Sequence[ScoredAnswer], at_least: int) -> list[Task]:
    """The tasks that an earlier attempt fixed, and as many others with an attempt of nonzero reward; with fewer than
    `at_least` of them, all with such an attempt; and with fewer of those, all tasks.

    If all attempts of a group have the same reward, GRPO learns nothing from their execution: so it is where a policy
    never edits the file of a task. Where it never fixes it, the group only teaches what to leave.
    """
    fixed = {answer.task_id for answer in answers if answer.verified}
    paid = {answer.task_id for answer in answers if answer.reward}
    others = [task.id for task in tasks if task.id in paid - fixed]
    for kept in (fixed.union(others[: len(fixed)]), fixed.union(others)):
        if len(kept) >= at_least:
            return [task for task in tasks if task.id in kept]
    return list(tasks)


def spread(tasks: Sequence[Task], count: int, seed: int = 0) -> list[Task]:
    """`count` tasks of as many functions as possible: the first of each, then the second of each, and so on."""
    by_function: dict[tuple[str, str], list[Task]] = {}
    shuffled = sorted(tasks, key=lambda task: task.id)
    random.Random(seed).shuffle(shuffled)
    for task in shuffled:
        where = task.target.function if task.target else task.id
        by_function.setdefault((task.repository, where), []).append(task)
    layers: list[Task] = []
    for depth in range(max(map(len, by_function.values()), default=0)):
        layers += [group[depth] for group in by_function.values() if depth < len(group)]
    return layers[:count]
