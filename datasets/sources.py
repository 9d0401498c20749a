"""Where tasks come from: the ready-made recipes, recipes built anew, or the user's own task file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.formats.task_files import read_task_file
from regrade.datasets.json_text import parse_json, read_text
from regrade.datasets.mutation.packages import fetch_all
from regrade.datasets.mutation.rebuilding import rebuild, task_id
from regrade.datasets.mutation.recipe_format import (
    PackageRecipes,
    read_recipes,
    recipe_files,
)
from regrade.datasets.mutation.splits import SPLITS, check_split, split_of
from regrade.datasets.tasks import Task

__all__ = ["BUILTIN", "SPLITS", "load_task", "load_tasks"]

BUILTIN = Path(__file__).parent / "shipped"
"""The folder of the recipes that ship with this program."""


def load_tasks(
    source: str | Path = "builtin",
    split: str | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Task]:
    """Tasks, always in the same order.

    Args:
        source: `builtin`; a folder of recipes, or one file of it, as `regrade tasks build` writes them; or a task file
            (`.json`, `.jsonl`) as `regrade.datasets.formats.task_files` describes it.
        split: one of `SPLITS`, for recipes; None for all tasks.
        cache: where fetched packages are kept; None for the default.
        progress: called with (packages fetched, packages needed).

    Raises:
        UserError: the source is unreadable or wrong, a package can't be fetched, or there is no such split.
    """
    check_split(split)
    path, files = _files(source)
    if not files:
        if split is not None:
            raise UserError(f"{path} is a task file, which has no splits: leave the split {split!r} out")
        return read_task_file(path, cache)
    wanted = [recipes for recipes in map(read_recipes, files) if _has(recipes, split)]
    roots = fetch_all([recipes.package for recipes in wanted], cache, progress)
    return [task for recipes in wanted for task in rebuild(recipes, roots[recipes.package.name], split)]


def load_task(
    source: str | Path,
    name: str,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Task:
    """The task of that id; of recipes, only its own package is fetched.

    Raises:
        UserError: there is none, or as `load_tasks`.
    """
    _, files = _files(source)
    known = {task.id: task for task in load_tasks(source, cache=cache)} if not files else {}
    if name in known:
        return known[name]
    names = list(known)
    for recipes in map(read_recipes, files):
        for recipe in recipes.tasks:
            names.append(task_id(recipes.package, recipe))
            if names[-1] == name:
                (root,) = fetch_all([recipes.package], cache, progress).values()
                return next(rebuild(replace(recipes, tasks=(recipe,)), root))
    close = get_close_matches(name, names, n=1) or names[:1]
    raise UserError(f"{source}: no task {name!r} among {len(names)}, such as {close[0]!r}: see `regrade tasks list`")


def _files(source: str | Path) -> tuple[Path, list[Path]]:
    """The path that a source stands for, and its files of recipes: none for a task file."""
    path = BUILTIN if source == "builtin" else Path(source)
    if not path.exists():
        raise UserError(f"no task file or folder of recipes at {path}: give its path, or `builtin` for those that ship")
    files = recipe_files(path) if path.is_dir() else [path] if _holds_recipes(path) else []
    if not files and path.is_dir():
        raise UserError(f"the folder {path} holds no recipes (*.json): write some with `regrade tasks build`")
    return path, files


def _has(recipes: PackageRecipes, split: str | None) -> bool:
    functions = {f"{task.file}::{task.function}" for task in recipes.tasks}
    return any(split in (None, split_of(recipes.package, function)) for function in functions)


def _holds_recipes(path: Path) -> bool:
    if path.suffix == ".jsonl":
        return False
    value = parse_json(read_text(path), str(path))
    return isinstance(value, dict) and "tasks" in value
