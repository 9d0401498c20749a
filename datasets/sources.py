"""Sources of tasks: the ready-made recipes, recipes built by the user, or the user's task file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from regrade.datasets.catalogue import CatalogueEntry
from regrade.datasets.errors import UserError
from regrade.datasets.formats.harbor import is_harbor
from regrade.datasets.formats.swe_bench_export import FORMS, INSTANCES
from regrade.datasets.formats.task_files import (
    list_task_file,
    read_task_file,
    read_wrong_fixes,
    split_names_of_file,
)
from regrade.datasets.formats.task_rows import PARQUET
from regrade.datasets.formats.task_sets import TASKS
from regrade.datasets.graded.records import Findings
from regrade.datasets.json_text import parse_json, read_text
from regrade.datasets.mutation.packages import fetch_all
from regrade.datasets.mutation.rebuilding import MUTATION, rebuild, task_id, wrong_fixes
from regrade.datasets.mutation.recipe_format import PackageRecipes, read_recipes, recipe_files
from regrade.datasets.mutation.splits import SPLITS, check_split, split_of
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task

__all__ = [
    "BUILTIN",
    "READY_MADE",
    "SPLITS",
    "CatalogueEntry",
    "list_tasks",
    "load_task",
    "load_tasks",
    "load_wrong_fixes",
]

BUILTIN = Path(__file__).parent / "shipped"
"""The folder of the ready-made recipes."""
READY_MADE = {"builtin": BUILTIN, "cross-module": BUILTIN / "cross_module"}
"""Names of sources -> folders of ready-made recipes. `cross-module`: each task shows one file of tests, and tests of
other files notice a wrong fix that the shown ones do not."""


def load_tasks(
    source: str | Path = "builtin",
    split: str | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    repositories: Path | None = None,
    findings: Findings | None = None,
) -> list[Task]:
    """Tasks, always in the same order.

    Args:
        source: `builtin` or `cross-module` (`READY_MADE`); a folder or a file of recipes, written by `regrade tasks
            build`; the folder of a task set, written by the same command; a task file (`.json`, `.jsonl`) in the
            format of `regrade.datasets.formats.task_files`; a file of SWE-bench instances (also `.parquet`), or a
            folder that `regrade tasks export` wrote.
        split: one of `SPLITS`, for recipes, or of the names in the task file; None for all tasks.
        cache: the folder of fetched packages; None for the default.
        progress: called with (packages fetched, packages needed).
        repositories: clones of what instances name: a folder, or a JSON file `{"owner/name": URL}`; None: the
            folder `repositories` beside the file.
        findings: receives what is odd in the lists of tests of instances, which is then left out; None: an error.

    Raises:
        UserError: the source is unreadable or wrong, a package cannot be fetched, or the split is unknown.
    """
    path, files = _files(source)
    if not files:
        return read_task_file(path, cache, split, repositories=repositories, findings=findings)
    check_split(split)
    selected = [recipes for recipes in map(read_recipes, files) if _has(recipes, split)]
    roots = fetch_all([recipes.package for recipes in selected], cache, progress)
    return [task for recipes in selected for task in rebuild(recipes, roots[recipes.package.name], split)]


def split_names(source: str | Path = "builtin") -> tuple[str, ...]:
    """The splits of which a source has tasks; empty if its tasks belong to none. No package is fetched.

    Raises:
        UserError: the source is unreadable or wrong.
    """
    path, files = _files(source)
    if not files:
        return split_names_of_file(path)
    recipes = [read_recipes(file) for file in files]
    return tuple(split for split in SPLITS if any(_has(each, split) for each in recipes))


def list_tasks(source: str | Path = "builtin", split: str | None = None) -> list[CatalogueEntry]:
    """The tasks of a source, in the order of `load_tasks`, without their files: no package is fetched.

    Raises:
        UserError: the source is unreadable or wrong, or the split is unknown.
    """
    path, files = _files(source)
    if not files:
        return list_task_file(path, split)
    check_split(split)
    return [
        CatalogueEntry(
            id=task_id(recipes.package, recipe),
            repository=recipes.package.name,
            source=MUTATION,
            file=recipe.file,
            function=recipe.function,
            fail_to_pass=len(recipe.fail_to_pass),
            pass_to_pass=len(recipes.tests) - len(set(recipe.fail_to_pass)),
        )
        for recipes in map(read_recipes, files)
        for recipe in recipes.tasks
        if split in (None, split_of(recipes.package, f"{recipe.file}::{recipe.function}"))
    ]


def load_task(
    source: str | Path, name: str, cache: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Task:
    """The task with the id `name`. For recipes, only its own package is fetched.

    Raises:
        UserError: unknown id, or as `load_tasks`.
    """
    _, files = _files(source)
    tasks = {task.id: task for task in load_tasks(source, cache=cache)} if not files else {}
    if name in tasks:
        return tasks[name]
    names = list(tasks)
    for recipes in map(read_recipes, files):
        for recipe in recipes.tasks:
            names.append(task_id(recipes.package, recipe))
            if names[-1] == name:
                (root,) = fetch_all([recipes.package], cache, progress).values()
                return next(rebuild(replace(recipes, tasks=(recipe,)), root))
    close = get_close_matches(name, names, n=1) or names[:1]
    raise UserError(f"{source}: no task {name!r} among {len(names)}, such as {close[0]!r}: see `regrade tasks list`")


def load_wrong_fixes(
    source: str | Path = "cross-module",
    split: str | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Patch]:
    """Task id -> a wrong fix that passes the shown tests and breaks others, for the recipes that have one.

    Args:
        source: `cross-module`, a folder or a file of recipes, or the folder of a task set.
        split, cache, progress: as of `load_tasks`.

    Raises:
        UserError: the source is no recipes, or as `load_tasks`.
    """
    path, files = _files(source)
    if not files and path.name == TASKS and Path(source).is_dir():
        return read_wrong_fixes(path, split)
    check_split(split)
    if not files:
        raise UserError(f"{path} is a task file, which has no wrong fixes: pass a folder or a file of recipes")
    selected = [recipes for recipes in map(read_recipes, files) if _has(recipes, split)]
    roots = fetch_all([recipes.package for recipes in selected], cache, progress)
    return {
        name: patch for recipes in selected for name, patch in wrong_fixes(recipes, roots[recipes.package.name], split)
    }


def _files(source: str | Path) -> tuple[Path, list[Path]]:
    """The path of a source, and its recipe files; a task file has none."""
    path = READY_MADE.get(str(source)) or Path(source)
    for name in (TASKS, *(f"{INSTANCES}.{form}" for form in FORMS)):
        if (path / name).is_file():
            return path / name, []
    if path.is_dir() and is_harbor(path):
        return path, []
    if not path.exists():
        names = ", ".join(READY_MADE)
        raise UserError(f"no task file or folder of recipes at {path}: pass its path, or one of: {names}")
    files = recipe_files(path) if path.is_dir() else [path] if _is_recipe_file(path) else []
    if not files and path.is_dir():
        raise UserError(f"the folder {path} contains no recipes (*.json): write some with `regrade tasks build`")
    return path, files


def _has(recipes: PackageRecipes, split: str | None) -> bool:
    functions = {f"{task.file}::{task.function}" for task in recipes.tasks}
    return any(split in (None, split_of(recipes.package, function)) for function in functions)


def _is_recipe_file(path: Path) -> bool:
    if path.suffix in (".jsonl", PARQUET):
        return False
    value = parse_json(read_text(path), str(path))
    return isinstance(value, dict) and "tasks" in value
