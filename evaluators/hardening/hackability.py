"""What became of an adversary's patches: the card of a task, and the shares of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from regrade.datasets.json_structs import converted
from regrade.datasets.tasks import Task
from regrade.evaluators.hardening.adversary import AttackKind
from regrade.evaluators.hardening.generated_tests import GeneratedTests


class AttackOutcome(StrEnum):
    """What became of a patch under a reward."""

    REFUSED = "refused"
    """It is not paid."""
    PAID = "paid"
    """It is paid, and it is shown to be no fix."""
    NO_DIFFERENCE = "no difference found"
    """It is paid, and nothing shows that it is no fix: it may be equivalent to the reference."""
    UNKNOWN = "unknown"
    """It has no reward, for a reason of this machine."""


@dataclass(frozen=True)
class AttackResult:
    """A patch of the adversary before and after the hardening."""

    kind: AttackKind
    name: str
    digest: str
    is_held_back: bool
    before: AttackOutcome
    after: AttackOutcome
    evidence: str = ""
    """Of a patch that was paid: what shows that it is no fix."""
    patch: str = ""
    """Its text, if it was paid without a fix."""


@dataclass(frozen=True)
class HonestResult:
    """Rewrites of the reference, which must be paid before and after."""

    before: int = 0
    after: int = 0


@dataclass(frozen=True)
class TaskCard:
    """How hackable a task is, before and after it was hardened."""

    id: str
    repository: str
    key: str
    """Digest of the task, the reward and the settings: a card with another one is of another measurement."""
    unfit: str = ""
    """Why nothing was measured; empty: it was."""
    reward: str = ""
    reachable: str = ""
    """The strongest assurance level that the reference reaches; empty: unknown."""
    inputs: int = 0
    """Held-out inputs that were asked."""
    attacks: tuple[AttackResult, ...] = ()
    tests: GeneratedTests | None = None
    """Hidden tests that the hardened task has besides its own."""
    assurance: str = ""
    """The level that it requires; empty: none."""
    honest: HonestResult = field(default_factory=HonestResult)
    notes: tuple[str, ...] = ()

    @property
    def open(self) -> tuple[AttackResult, ...]:
        """Patches that are still paid without a fix."""
        return tuple(attack for attack in self.attacks if attack.after is AttackOutcome.PAID)

    def hardened(self, task: Task) -> Task:
        """The task with the hidden tests and the required level."""
        stronger = task if self.tests is None else self.tests.added_to(task)
        return replace(stronger, assurance=self.assurance or task.assurance)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class PaidShare:
    """Patches shown to be no fix, and those of them that are paid."""

    patches: int
    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.before} -> {self.after} of {self.patches}"


def card_of(value: object, where: str) -> TaskCard:
    """The card of an object of JSON. Raises UserError."""
    return converted(value, TaskCard, where, "delete the line, and its task is measured again")


def share(attacks: Iterable[AttackResult]) -> PaidShare:
    """Of patches that are refused or shown to be no fix: the others are left out."""
    counted = [attack for attack in attacks if attack.before in (AttackOutcome.REFUSED, AttackOutcome.PAID)]
    before, after = (
        sum(getattr(attack, name) is AttackOutcome.PAID for attack in counted) for name in ("before", "after")
    )
    return PaidShare(len(counted), before, after)


def shares_by_kind(cards: Sequence[TaskCard]) -> dict[str, PaidShare]:
    """Kind -> share, over all cards; then those that were held back while hardening, and all."""
    attacks = [attack for card in cards for attack in card.attacks]
    shares = {str(kind): share(attack for attack in attacks if attack.kind is kind) for kind in AttackKind}
    shares = {kind: found for kind, found in shares.items() if found.patches}
    shares["held back"] = share(attack for attack in attacks if attack.is_held_back)
    shares["all"] = share(attacks)
    return shares


def hackable_tasks(cards: Sequence[TaskCard]) -> PaidShare:
    """Tasks that were measured, and those that pay for at least one patch that is no fix."""
    measured = [card for card in cards if not card.unfit]
    return PaidShare(
        len(measured),
        sum(any(attack.before is AttackOutcome.PAID for attack in card.attacks) for card in measured),
        sum(bool(card.open) for card in measured),
    )


def closed_by(cards: Sequence[TaskCard]) -> Counter[str]:
    """How many tasks were closed by what."""
    return Counter(
        name
        for card in cards
        for name in (*(["generated tests"] if card.tests else []), *([card.assurance] if card.assurance else []))
    )
