"""The loop that hardens a task: the adversary's patches are scored, and what is paid without a fix is closed.

    attacks -> paid by the reward? -> shown to be no fix? -> closed by hidden tests, else by a required level -> again

What closes a gap must not cost an honest patch its pay: the reference and its rewrites are paid before and after, or a
test or a level is not added. Every second mutant is held back, so that the share after counts patches too that nothing
was closed against. The scorer stores all evidence, so a killed run goes on.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from regrade.datasets.patches import Patch, PatchError
from regrade.datasets.tasks import Task
from regrade.evaluators.hardening.adversary import Attack, attacks, honest_patches
from regrade.evaluators.hardening.generated_tests import GeneratedTests, generate_tests, is_writable
from regrade.evaluators.hardening.hackability import AttackOutcome, AttackResult, HonestResult, TaskCard
from regrade.evaluators.hardening.reference_behaviour import (
    AnswerDifference,
    ReferenceBehaviour,
    differences,
    measure_reference,
)
from regrade.evaluators.hardening.screening import passing_fail_to_pass, pays_only_whole_fixes
from regrade.evaluators.scoring.code_version import code_version
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.verification.counterfactuals import PatchedTree
from regrade.rewards.algebra import Reward
from regrade.rewards.assurance import assured, at_level
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import DefaultVerification, EvidenceSet, TestRun, TestStatus, Verification

Progress = Callable[[str, int, int], None]
"""Called with (current activity, steps done, total steps)."""
TESTS_FOR_EACH = 3
"""Held-out inputs that become tests against one patch, where so many distinguish it."""


@dataclass(frozen=True, kw_only=True)
class HardeningSettings:
    """How hard the adversary tries, and how much may be added to a task."""

    most: int = 4
    """Patches of each kind of attack that has any number of them."""
    inputs: int = 100
    """Held-out inputs of each function that the reference changes."""
    most_tests: int = 12
    """Hidden tests of one task."""
    honest: int = 6
    """Rewrites of the reference and of the base that are tried as honest patches."""
    paid: float = 0.5
    """A patch is paid if its reward exceeds the empty patch's by this share of what the reference's does."""
    seed: int = 0


@dataclass(frozen=True)
class AttackedReward:
    """The reward that the adversary is paid by."""

    plain: Reward
    level: str | None = None
    """See `at_level`."""
    source: str = ""
    """What identifies it besides its name, such as the text of its file."""

    def of(self, task: Task) -> Reward:
        """The reward of a task, which requires the level that is recorded for it."""
        gated = at_level(self.plain, self.level)
        if not task.assurance or DefaultVerification in gated.needs:
            return gated
        return gated.only_if(assured(task.assurance))


def harden(
    tasks: Sequence[Task],
    scorer: Scorer,
    reward: AttackedReward,
    settings: HardeningSettings | None = None,
    *,
    given: Mapping[str, Sequence[Patch]] | None = None,
    known: Mapping[str, TaskCard] | None = None,
    progress: Progress = lambda *_: None,
) -> Iterator[TaskCard]:
    """Attack tasks and close what gets through; yields the card of each task, in order.

    Args:
        given: task id -> further patches of the adversary.
        known: task id -> card of an earlier run, which is yielded again if nothing has changed.

    Raises:
        UserError: the sandbox does not isolate.
        SandboxError, OSError, WorkerDiedError: this machine failed every time.
    """
    settings = settings or HardeningSettings()
    for number, task in enumerate(tasks):
        patches = (given or {}).get(task.id, ())
        key = _key(task, reward, settings, patches)
        card = (known or {}).get(task.id)
        if card is None or card.key != key:
            progress(task.id, number, len(tasks))
            card = replace(_card(task, scorer, reward, settings, patches), key=key)
        yield card
    progress("hardening", len(tasks), len(tasks))


def _key(task: Task, reward: AttackedReward, settings: HardeningSettings, given: Sequence[Patch]) -> str:
    reference = "" if task.reference is None else task.reference.digest
    of_reward = [reward.plain.name, str(reward.level), reward.source]
    patches = [patch.digest for patch in given]
    parts = [task.digest, reference, of_reward, asdict(settings), patches, code_version(), _own_code()]
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogateescape")).hexdigest()


@functools.cache
def _own_code() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _card(
    task: Task, scorer: Scorer, reward: AttackedReward, settings: HardeningSettings, given: Sequence[Patch]
) -> TaskCard:
    card = TaskCard(id=task.id, repository=task.repository, key="", reward=reward.plain.name)
    if task.suite.runner != "pytest":
        return replace(card, unfit="only tasks with pytest tests can be attacked")
    if task.reference is None:
        return replace(card, unfit="it has no reference patch, so nothing shows what a fix is")
    try:
        tree = PatchedTree.of(task)
    except PatchError as error:
        return replace(card, unfit=f"its reference does not apply: {error}")
    return _Siege(task, task.reference, tree, scorer, reward, settings, given).card(card)


@dataclass(frozen=True)
class _Scale:
    """The rewards that decide what is paid."""

    nothing: float
    reference: float
    share: float

    def is_paid(self, value: float | None) -> bool:
        return value is not None and value - self.nothing >= self.share * (self.reference - self.nothing)


@dataclass(frozen=True)
class _Siege:
    """The hardening of one task."""

    task: Task
    reference: Patch
    tree: PatchedTree
    scorer: Scorer
    reward: AttackedReward
    settings: HardeningSettings
    given: Sequence[Patch]

    def card(self, card: TaskCard) -> TaskCard:
        nothing, reference = self._values(self.task, [Patch(""), self.reference])
        if nothing is None or reference is None:
            return replace(card, unfit="the reward of the reference or of an empty patch is unknown")
        if reference <= nothing:
            return replace(card, unfit=f"the reward pays the reference {reference:.3f}, an empty patch {nothing:.3f}")
        scale = _Scale(nothing, reference, self.settings.paid)
        (behaviour,) = self.scorer.out_of_process(
            self.task, [lambda workers: measure_reference(workers, self.task, self.settings.inputs)]
        )
        tried = attacks(
            self.task, self.tree, behaviour, most=self.settings.most, seed=self.settings.seed, given=self.given
        )
        rewrites = honest_patches(self.task, self.settings.honest, self.settings.seed)
        patches = [attack.patch for attack in tried] + rewrites
        values = self._screened_values(patches, scale)
        paid = [patch for patch in patches if scale.is_paid(values[patch])]
        differing = self._differences(paid, behaviour)
        honest = [patch for patch in rewrites if patch in differing and not differing[patch]]
        evidence = self._evidence([attack.patch for attack in tried if attack.patch in differing], differing)
        found = [attack for attack in tried if evidence.get(attack.patch)]
        tests, stronger = self._close_by_tests(
            [attack.patch for attack in found if not attack.is_held_back], honest, differing, behaviour
        )
        level, stronger, reachable, notes = self._close_by_level(found, honest, stronger, scale)
        after = self._paid_after(stronger, [*(attack.patch for attack in found), *honest, self.reference], scale)
        if self.reference not in after:
            notes = (*notes, "with the additions, the reference is not paid: they are left out")
            tests, level, after = None, "", {*(attack.patch for attack in found), *honest}
        return replace(
            card,
            reachable=reachable,
            inputs=0 if behaviour is None else len(behaviour.inputs),
            attacks=tuple(_result(attack, values, scale, evidence, after) for attack in tried),
            tests=tests,
            assurance=level,
            honest=HonestResult(len(honest), sum(patch in after for patch in honest)),
            notes=notes,
        )

    def _gathered(self, task: Task, patches: Sequence[Patch], needs: frozenset[type]) -> list[EvidenceSet]:
        return self.scorer.gather([(task, patch) for patch in patches], needs, reachable=True)

    def _values(self, task: Task, patches: Sequence[Patch]) -> list[float | None]:
        reward = self.reward.of(task)
        return [reward.evaluate(evidence).value for evidence in self._gathered(task, patches, reward.needs)]

    def _screened_values(self, patches: Sequence[Patch], scale: _Scale) -> dict[Patch, float | None]:
        """Patch -> its reward; where the reward pays only whole fixes, that of the empty patch if it makes none."""
        reward = self.reward.of(self.task)
        (of_reference,) = self._gathered(self.task, [self.reference], reward.needs)
        chosen = list(dict.fromkeys(patches))
        if pays_only_whole_fixes(reward, of_reference, scale.is_paid):
            chosen = passing_fail_to_pass(self.scorer, self.task, chosen)
        values: dict[Patch, float | None] = dict.fromkeys(patches, scale.nothing)
        return values | dict(zip(chosen, self._values(self.task, chosen), strict=True))

    def _differences(
        self, patches: Sequence[Patch], behaviour: ReferenceBehaviour | None
    ) -> dict[Patch, list[AnswerDifference]]:
        """Patch -> the held-out inputs that it answers otherwise than the reference."""
        distinct = list(dict.fromkeys(patches))
        if behaviour is None or not behaviour.inputs:
            return {patch: [] for patch in distinct}
        calls = [functools.partial(differences, task=self.task, patch=patch, reference=behaviour) for patch in distinct]
        return dict(zip(distinct, self.scorer.out_of_process(self.task, calls), strict=True))

    def _evidence(
        self, patches: Sequence[Patch], differing: Mapping[Patch, Sequence[AnswerDifference]]
    ) -> dict[Patch, str]:
        """Patch -> what shows that it is no fix; empty: nothing does."""
        evidence = {patch: differing[patch][0].why if differing[patch] else "" for patch in patches}
        rest = [patch for patch, why in evidence.items() if not why]
        for patch, gathered in zip(rest, self._gathered(self.task, rest, frozenset({Verification})), strict=True):
            verification: Verification | None = gathered.records.get(Verification)
            if verification is not None and (verification.refuted or verification.sprung or _mismatches(verification)):
                evidence[patch] = verification.why
        return evidence

    def _close_by_tests(
        self,
        exploits: Sequence[Patch],
        honest: Sequence[Patch],
        differing: Mapping[Patch, Sequence[AnswerDifference]],
        behaviour: ReferenceBehaviour | None,
    ) -> tuple[GeneratedTests | None, Task]:
        """Hidden tests that the reference and the honest patches pass, and the task with them."""
        if behaviour is None:
            return None, self.task
        indices = _chosen([differing[patch] for patch in exploits], behaviour, self.settings.most_tests)
        generated = generate_tests(self.task, behaviour, indices)
        if generated is None:
            return None, self.task
        tests, sources = generated
        patches = [Patch(""), self.reference, *honest]
        gathered = self.scorer.gather(
            [(tests.alone(replace(self.task, reference=None)), patch) for patch in patches], frozenset({TestRun})
        )
        at_base, *passing = [_passing(each) for each in gathered]
        kept = set(sources).intersection(*passing)
        if not kept:
            return None, self.task
        tests = replace(
            tests,
            fail_to_pass=tuple(test for test in sources if test not in at_base),
            pass_to_pass=tuple(test for test in sources if test in at_base),
        ).only(kept, sources)
        return tests, tests.added_to(self.task)

    def _close_by_level(
        self, found: Sequence[Attack], honest: Sequence[Patch], task: Task, scale: _Scale
    ) -> tuple[str, Task, str, tuple[str, ...]]:
        """The required level ("" if none helps), the task with it, the strongest that it allows, and notes."""
        used = [attack.patch for attack in found if not attack.is_held_back]
        still_paid = self._paid_after(task, used, scale)
        rest = [patch for patch in used if patch in still_paid]
        if not rest:
            return "", task, "", ()
        patches = [self.reference, *honest, *rest]
        levels = [each.records.get(Verification) for each in self._gathered(task, patches, frozenset({Verification}))]
        if any(level is None for level in levels):
            return "", task, "", ("no level was tried: the verification of a patch is unknown",)
        known = [level for level in levels if level is not None]
        reachable = known[0].reachable
        trusted, others = known[: 1 + len(honest)], known[1 + len(honest) :]
        allowed = [
            level
            for level in AssuranceLevel
            if level > AssuranceLevel.IN_PROCESS and all(each.reaches(level) for each in trusted)
        ]
        closed = {level: sum(not each.reaches(level) for each in others) for level in allowed}
        most = max(closed.values(), default=0)
        level = next((level for level in allowed if most and closed[level] == most), None)  # the weakest of the best
        if level is not None:
            return str(level), replace(task, assurance=str(level)), reachable, ()
        return "", task, reachable, (f"{len(rest)} patches are paid at every level that the reference reaches",)

    def _paid_after(self, task: Task, patches: Sequence[Patch], scale: _Scale) -> set[Patch]:
        values = self._values(task, patches) if patches else []
        return {patch for patch, value in zip(patches, values, strict=True) if scale.is_paid(value)}


def _mismatches(verification: Verification) -> bool:
    """Does it answer held-out inputs otherwise? Then its level is that below, and the reason names one."""
    return (
        verification.level == AssuranceLevel.OUT_OF_PROCESS
        and verification.reachable == AssuranceLevel.HELD_OUT
        and verification.inputs > 0
    )


def _chosen(differing: Sequence[Sequence[AnswerDifference]], behaviour: ReferenceBehaviour, most: int) -> list[int]:
    """Inputs that can be written as tests: some against each patch, first those that distinguish many."""
    writable = {
        index
        for index in {difference.index for of_patch in differing for difference in of_patch}
        if is_writable(behaviour.inputs[index], behaviour.expected[index])
    }
    counts = Counter(difference.index for of_patch in differing for difference in of_patch)
    ranked = sorted(writable, key=lambda index: (-counts[index], len(json.dumps(behaviour.inputs[index])), index))
    chosen: list[int] = []
    for _ in range(TESTS_FOR_EACH):
        for of_patch in differing:
            own = {difference.index for difference in of_patch}
            if len(own.intersection(chosen)) < TESTS_FOR_EACH and len(chosen) < most:
                chosen += [next((index for index in ranked if index in own and index not in chosen), -1)]
                chosen = [index for index in chosen if index >= 0]
    return sorted(chosen)


def _passing(evidence: EvidenceSet) -> set[str]:
    run: TestRun | None = evidence.records.get(TestRun)
    outcomes = {} if run is None else run.outcomes
    return {test for test, outcome in outcomes.items() if outcome.status is TestStatus.PASSED}


def _result(
    attack: Attack,
    values: Mapping[Patch, float | None],
    scale: _Scale,
    evidence: Mapping[Patch, str],
    after: set[Patch],
) -> AttackResult:
    value, why = values[attack.patch], evidence.get(attack.patch, "")
    if value is None:
        before = AttackOutcome.UNKNOWN
    elif not scale.is_paid(value):
        before = AttackOutcome.REFUSED
    else:
        before = AttackOutcome.PAID if why else AttackOutcome.NO_DIFFERENCE
    is_exploit = before is AttackOutcome.PAID
    return AttackResult(
        attack.kind,
        attack.name,
        attack.patch.digest,
        attack.is_held_back,
        before,
        AttackOutcome.REFUSED if is_exploit and attack.patch not in after else before,
        why if is_exploit else "",
        attack.patch.text if is_exploit else "",
    )
