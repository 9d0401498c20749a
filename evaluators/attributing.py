"""Which hunks of a patch its reward comes from: subsets of them are scored, and the reward is shared out among them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.hunks import SplitPatch, split_patch
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.arguments import checked_count, checked_job, checked_reward
from regrade.evaluators.attribution import Attribution, Cost, GroupShare, Smallest, Subset, Without, minus
from regrade.evaluators.hunk_groups import Group, hunk_groups
from regrade.evaluators.minimising import ddmin
from regrade.evaluators.scorer import Progress, Scorer
from regrade.evaluators.shapley import (
    Coalition,
    Range,
    Share,
    Worths,
    antithetic_orders,
    coalitions,
    exact,
    interactions,
    prefixes,
    sampled,
)
from regrade.rewards.algebra import Reward
from regrade.rewards.evidence import End, EvidenceSet, TestRun
from regrade.rewards.ranges import value_range

BUDGET = 256
"""Subsets scored at most, unless told otherwise: all those of eight groups."""
LEAST_BUDGET = 8
LEAST_PAIRS = 8
"""Pairs of orders without which nothing is estimated: of fewer the standard error says too little. Where two hunks must
come together and a third spoils it, the share lay within two standard errors in 46 % of the cases with 2 pairs, in 79 %
with 4 and in 93 % with 8."""
TINY = 1e-9
"""Shares of parts below it are rounding."""


def attribute(
    scorer: Scorer,
    task: Task,
    patch: Patch,
    reward: Reward,
    *,
    full: bool = True,
    budget: int = BUDGET,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attribution:
    """Share the reward of a patch out among its hunks, by scoring subsets of them.

    Every subset is scored where the budget is enough; else those that sampled orders need. What the scorer's store
    knows is not run again.

    Args:
        full: as in `Scorer.gather`.
        budget: subsets scored at most. Where it is too small for the groups, neighbours are taken together.
        seed: of the sampled orders.
        progress: called with (subsets scored, subsets wanted so far).

    Raises:
        PatchError: the patch is no diff, or does not apply.
        UserError: an argument is not what it should be.
    """
    task, patch = checked_job((task, patch))
    reward = checked_reward(reward)
    budget = checked_count("budget", budget) or BUDGET
    if budget < LEAST_BUDGET:
        raise UserError(f"a budget of {budget} subsets is too small to tell hunks apart: give {LEAST_BUDGET} or more")
    split = split_patch(patch)
    groups, count = hunk_groups(task, split, most=max(n for n in range(1, budget + 1) if needed(n) <= budget))
    notes: tuple[str, ...] = ()
    if len(groups) < count:
        notes = (
            f"{count} groups of hunks are taken together as {len(groups)}: a budget of {budget} subsets tells no more "
            f"apart, and one of {needed(count)} would",
        )
    game = Game(scorer, task, split, groups, reward, full, progress)
    return _attributed(game, budget, seed, notes)


def needed(n: int) -> int:
    """The subsets that n groups need: all of them, or those of `LEAST_PAIRS` pairs of orders, those that lack one
    group, and as many again to look for a smaller patch that passes."""
    return min(int(2**n), 2 + 2 * n + 2 * LEAST_PAIRS * max(n - 1, 1))


class Game:
    """The patches that can be made of some groups of hunks, and what is known of each."""

    def __init__(
        self,
        scorer: Scorer,
        task: Task,
        split: SplitPatch,
        groups: Sequence[Group],
        reward: Reward,
        full: bool,
        progress: Progress | None,
    ) -> None:
        self.task, self.split, self.groups, self.reward = task, split, groups, reward
        self.everything = frozenset(range(len(groups)))
        self.known: dict[Coalition, Subset] = {}
        self.cost = Cost(0, 0, 0, 0.0)
        self._scorer, self._full, self._progress = scorer, full, progress
        tests = {TestRun} if task.fail_to_pass or task.pass_to_pass else set()
        self._needs = reward.needs | tests

    def patch_of(self, chosen: Coalition) -> Patch:
        return self.split.subset([place for number in chosen for place in self.groups[number].places])

    def learn(self, wanted: Iterable[Coalition]) -> None:
        """Score those that are not known yet."""
        new = [chosen for chosen in dict.fromkeys(wanted) if chosen not in self.known]
        if not new:
            return
        before, started, done = self._scorer.stats, time.monotonic(), len(self.known)

        def tell(count: int, total: int) -> None:
            if self._progress:
                self._progress(done + count, done + total)

        jobs = [(self.task, self.patch_of(chosen)) for chosen in new]
        found = self._scorer.gather(jobs, self._needs, full=self._full, progress=tell)
        self.known.update((chosen, self._subset(each)) for chosen, each in zip(new, found, strict=True))
        after = self._scorer.stats
        self.cost = Cost(
            len(self.known),
            self.cost.from_store + after.hits - before.hits,
            self.cost.executions + after.executions - before.executions,
            self.cost.seconds + time.monotonic() - started,
        )

    def _subset(self, evidence: EvidenceSet) -> Subset:
        run = evidence.records.get(TestRun)
        outcome: dict[str, Any] = {}
        if isinstance(run, TestRun) and run.outcomes:
            passes = run.end is End.COMPLETED and run.resolved
            outcome = {"passes": passes, "fixed": frozenset(run.fixed), "broken": frozenset(run.broken)}
        return Subset(self.reward.evaluate(evidence), **outcome)


def _attributed(game: Game, budget: int, seed: int, notes: tuple[str, ...]) -> Attribution:
    n = len(game.groups)
    is_exact = 2**n <= budget
    orders: list[tuple[int, ...]] = []
    lacking_one = [game.everything - {number} for number in range(n)]
    if is_exact:
        game.learn(coalitions(n))
    else:
        orders = antithetic_orders(n, (budget - 2 - 2 * n) // (2 * (n - 1)), seed)
        game.learn(
            [frozenset(), game.everything, *lacking_one, *(each for order in orders for each in prefixes(order))]
        )

    def shares(worths: Worths, worth_range: Range) -> list[Share]:
        return exact(n, worths, worth_range) if is_exact else sampled(n, orders, worths, worth_range)

    whole, nothing = game.known[game.everything], game.known[frozenset()]
    worths = {chosen: subset.value for chosen, subset in game.known.items()}
    totals = shares(worths, Range(*value_range(game.reward)))
    together = interactions(n, worths) if is_exact else {}
    parts = _shares_of_parts(game, shares)
    smallest = _smallest(game, is_exact, budget)  # it may have more subsets scored
    groups = tuple(
        GroupShare(
            tuple(game.split.hunks[place] for place in sorted(group.places)),
            group.why,
            totals[number],
            {} if totals[number].value is None else {name: each[number] for name, each in parts.items()},
            alone.value if (alone := game.known.get(frozenset({number}))) else None,
            _without(whole, game.known[lacking_one[number]]),
        )
        for number, group in enumerate(game.groups)
    )
    unscored = tuple(
        (tuple(sorted(chosen)), subset.cause) for chosen, subset in game.known.items() if subset.value is None
    )
    return Attribution(
        game.reward.name, whole, nothing, groups, is_exact, len(orders), together, smallest, unscored, game.cost, notes
    )


def _shares_of_parts(game: Game, shares: Callable[[Worths, Range], list[Share]]) -> dict[str, list[float]]:
    """Top part of the reward -> what each group adds to it; what could not be scored is passed over as 0 here, since
    nothing is told of groups that depend on it."""
    names = dict.fromkeys(name for subset in game.known.values() for name in subset.parts)
    found = {}
    for name in names:
        worths = {chosen: subset.parts.get(name, 0.0) for chosen, subset in game.known.items()}
        values = [share.value or 0.0 for share in shares(worths, Range(0.0, 0.0))]
        if any(abs(value) > TINY for value in values):
            found[name] = values
    return found


def _without(whole: Subset, rest: Subset) -> Without:
    if whole.passes is None or rest.passes is None:
        return Without(rest.value, rest.cause, minus(whole.value, rest.value), (), (), (), ())
    return Without(
        rest.value,
        rest.cause,
        minus(whole.value, rest.value),
        tuple(sorted(whole.fixed - rest.fixed)),
        tuple(sorted(rest.broken - whole.broken)),
        tuple(sorted(rest.fixed - whole.fixed)),
        tuple(sorted(whole.broken - rest.broken)),
    )


def _smallest(game: Game, is_exact: bool, budget: int) -> Smallest | None:
    """The passing subset with the fewest groups, then the fewest changed lines, of those that were scored."""
    passing = [chosen for chosen, subset in game.known.items() if subset.passes]
    if not passing:
        return None

    def size(chosen: Coalition) -> tuple[int, int, list[int]]:
        return len(chosen), game.patch_of(chosen).changed_lines, sorted(chosen)

    best = min(passing, key=size)
    smaller = [chosen for chosen in game.known if len(chosen) < len(best)]
    if is_exact:
        lost = sum(game.known[chosen].passes is None for chosen in smaller)
        proof = "" if lost else "smallest"
        why = (
            f"{lost} smaller subsets could not be scored"
            if lost
            else f"all {len(smaller)} smaller subsets were run, and none passes"
            if smaller
            else "nothing is smaller"
        )
        return Smallest(tuple(sorted(best)), game.patch_of(best), proof, why)
    found = ddmin(best, lambda chosen: _passes(game, chosen, budget))
    proof = "one-minimal" if found.is_one_minimal else ""
    why = (
        "none passes that lacks one more group; smaller ones made otherwise are not ruled out"
        if proof
        else f"of {len(found.unknown)} of its groups it was not found out whether it passes without them"
    )
    if not found.kept:
        proof, why = "smallest", "nothing is smaller"
    return Smallest(tuple(sorted(found.kept)), game.patch_of(found.kept), proof, why)


def _passes(game: Game, chosen: Coalition, budget: int) -> bool | None:
    if chosen not in game.known and len(game.known) >= budget:
        return None
    game.learn([chosen])
    return game.known[chosen].passes
