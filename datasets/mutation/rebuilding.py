"""Rebuilding tasks from recipes: planting the bugs again in the fetched sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.mutation.mutants import FunctionSize, Mutant
from regrade.datasets.mutation.packages import Package
from regrade.datasets.mutation.recipe_format import Failure, PackageRecipes, TaskRecipe
from regrade.datasets.mutation.splits import split_of
from regrade.datasets.mutation.syntax_mutations import AnyMutations, mutations_of
from regrade.datasets.node_ids import test_files_of
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Limits, Shown, Target, Task, TestSuite, Tree

MUTATION = "mutation"
"""`Task.source` of a planted bug."""
_LINE_LENGTH = 117
_CONTEXT = 3


def wrong_fixes(recipes: PackageRecipes, root: Path, split: str | None = None) -> Iterator[tuple[str, Patch]]:
    """(id, wrong fix that the shown tests do not notice) of each task that has one.

    Raises:
        UserError: the sources differ from those of the recipes.
    """
    pristine, mutations = Tree(root), dict[str, AnyMutations]()
    for recipe in recipes.tasks:
        wrong = recipe.wrong_fix
        if wrong is not None and split in (None, split_of(recipes.package, f"{recipe.file}::{recipe.function}")):
            if recipe.file not in mutations:
                mutations[recipe.file] = _mutations(pristine, recipe.file, recipes.size)
            bug = _found(mutations[recipe.file], recipe, recipe.kind, recipe.place, pristine)
            other = _found(mutations[recipe.file], recipe, wrong.kind, wrong.place, pristine)
            yield task_id(recipes.package, recipe), wrong_fix_patch(bug, other)


def wrong_fix_patch(bug: Mutant, other: Mutant) -> Patch:
    """The patch of a base with one bug that takes it back, and plants another one in the same file."""
    return Patch.between({bug.file: bug.source}, {bug.file: other.source})


def rebuild(recipes: PackageRecipes, root: Path, split: str | None = None) -> Iterator[Task]:
    """The tasks of a package, or of one split, from its unpacked source distribution at `root`.

    Raises:
        UserError: the sources differ from those of the recipes.
    """
    # The tasks share one suite: the reach of a package has tens of thousands of entries.
    suite = measured_suite(recipes)
    pristine = Tree(root)
    mutations: dict[str, AnyMutations] = {}
    for recipe in recipes.tasks:
        if split is None or split == split_of(recipes.package, f"{recipe.file}::{recipe.function}"):
            if recipe.file not in mutations:
                mutations[recipe.file] = _mutations(pristine, recipe.file, recipes.size)
            yield _task(recipes, recipe, mutations[recipe.file], pristine, suite)


def measured_suite(recipes: PackageRecipes) -> TestSuite:
    """The package's test suite, with the measured reach."""
    if recipes.suite is not None:
        return recipes.suite
    source = recipes.package
    reach = {key: tuple(recipes.tests[index] for index in indexes) for key, indexes in recipes.reach.items()}
    imported = frozenset(recipes.imported)
    return TestSuite(
        python_path=source.python_path,
        paths=source.paths,
        options=source.options,
        test_files=test_files_of(recipes.tests),
        reach=reach,
        imported=imported,
    )


def _task(
    recipes: PackageRecipes, recipe: TaskRecipe, mutations: AnyMutations, pristine: Tree, suite: TestSuite
) -> Task:
    source = recipes.package
    mutant = _found(mutations, recipe, recipe.kind, recipe.place, pristine)
    failing = set(recipe.fail_to_pass)
    return Task(
        id=task_id(source, recipe),
        repository=source.name,
        base=Tree(root=pristine.root, replaced=MutatedFile(mutant), known=pristine.known),
        instruction=f"Some tests fail because of a bug in `{recipe.function}` in `{recipe.file}`: fix it.",
        fail_to_pass=tuple(recipes.tests[index] for index in recipe.fail_to_pass),
        pass_to_pass=tuple(test for index, test in enumerate(recipes.tests) if index not in failing),
        suite=suite,
        requirements=source.requirements,
        limits=Limits(wall_seconds=source.wall_seconds),
        source=MUTATION,
        kind=recipe.kind,
        target=Target(recipe.file, recipe.function, mutant.first_line, mutant.last_mutated_line),
        failure=failure_text(recipe.failure, pristine),
        reference=reference_patch(mutant),
        shown=Shown(tests=None if recipe.shown is None else (recipe.shown,)),
    )


def _found(mutations: AnyMutations, recipe: TaskRecipe, kind: str, place: str, pristine: Tree) -> Mutant:
    """The bug of a recipe, or that of its wrong fix."""
    mutant = mutations.find(recipe.function, kind, place)
    is_bug = (kind, place) == (recipe.kind, recipe.place)
    if mutant is None or (is_bug and mutant.digest != recipe.digest):
        raise UserError(
            f"the {kind} bug at {recipe.file}:{place.partition(':')[0]} cannot be rebuilt from {pristine.root}: the "
            "sources or the recipes were changed; delete that folder, so that it is fetched again, or rebuild the "
            "recipes"
        )
    return mutant


class MutatedFile(Mapping[str, str]):
    """Path -> text of the one file that a mutant changes.

    The text is computed at each request: stored texts of thousands of tasks would fill the memory.
    """

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def __getitem__(self, path: str) -> str:
        if path != self._mutant.file:
            raise KeyError(path)
        return self._mutant.source

    def __iter__(self) -> Iterator[str]:
        yield self._mutant.file

    def __len__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return f"MutatedFile({self._mutant.file!r}, {self._mutant.kind!r}, {self._mutant.place!r})"


def task_id(package: Package, recipe: TaskRecipe) -> str:
    """`package/file:function:kind:place`, unique among all recipes; with `@` and the file of the shown tests, if these
    are not all."""
    name = f"{package.name}/{recipe.file}:{recipe.function}:{recipe.kind}:{recipe.place}"
    return name if recipe.shown is None else f"{name}@{recipe.shown}"


def failure_text(failure: Failure, pristine: Tree) -> str:
    """`>>> LINE`, with the test's line, and the error below it."""
    lines = pristine.read(failure.file).split("\n") if failure.line else []
    line = lines[failure.line - 1].strip() if 0 < failure.line <= len(lines) else ""
    return f">>> {line[:_LINE_LENGTH]}\n{failure.error[:_LINE_LENGTH]}"


def reference_patch(mutant: Mutant) -> Patch:
    """The patch that restores the original lines."""
    if not mutant.is_one_line:
        return Patch.between({mutant.file: mutant.source}, {mutant.file: mutant.pristine})
    return _line_patch(mutant.file, mutant.source, mutant.line, mutant.original_line)


def planting_patch(mutant: Mutant) -> Patch:
    """The patch that plants the bug in the pristine file."""
    if not mutant.is_one_line:
        return Patch.between({mutant.file: mutant.pristine}, {mutant.file: mutant.source})
    return _line_patch(mutant.file, mutant.pristine, mutant.line, mutant.mutated_line)


def _line_patch(file: str, source: str, line: int, new: str) -> Patch:
    """The patch that replaces one line: equal to that of `Patch.between`, without a comparison of whole files."""
    lines = source.split("\n")
    old, before, after = lines[line - 1], lines[: line - 1][-_CONTEXT:], lines[line : line + _CONTEXT]
    ending = ""
    if line + len(after) == len(lines):
        if after and not after[-1]:
            after.pop()  # no line follows the last newline
        else:
            ending = "\\ No newline at end of file\n"
    start, count = line - len(before), len(before) + 1 + len(after)
    removed = [f"-{old}", ending.rstrip()] if ending and not after else [f"-{old}"]
    hunk = [*(f" {text}" for text in before), *removed, f"+{new}", *(f" {text}" for text in after)]
    header = f"diff --git a/{file} b/{file}\n--- a/{file}\n+++ b/{file}\n"
    return Patch(f"{header}@@ -{start},{count} +{start},{count} @@\n" + "\n".join(hunk) + f"\n{ending}")


def _mutations(pristine: Tree, file: str, size: FunctionSize) -> AnyMutations:
    try:
        return mutations_of(pristine.read(file), file, size)
    except (OSError, SyntaxError) as error:
        raise UserError(f"{pristine.root / file}, named in the recipes, cannot be parsed: {error}") from error
