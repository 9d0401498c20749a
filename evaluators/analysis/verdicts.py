"""The verdict of a comparison, decided from two 95 % intervals and the margin alone.

A comparison asks two questions about the candidate: does it fix more (clean fixes), and does it break less (breakage)?
The interval of the paired difference, candidate - baseline, answers each:

- **better**, **worse**: the interval excludes 0.
- **non-inferior**: it contains 0, and excludes a loss of the margin or more.
- **open**: it contains 0 and such a loss, so non-inferiority is not shown.
- **unmeasured**: the rows do not contain the metric.

The verdict follows from the two answers:

- **improved**: better in one question and non-inferior in the other. So neither a policy that changes nothing nor one
  that only edits more often wins. A loss that is shown, but is smaller than the margin, is non-inferior too.
- **regressed**: not improved, and worse in one question.
- **inconclusive**: better in one question, but non-inferiority in the other is not shown; or improved, but not if the
  missing attempts had ended in the candidate's disfavour.
- **no difference shown**: neither better nor worse in any question.
- **not comparable**: no question is asked, since there is no common basis (see `comparison.compare`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["better", "non-inferior", "open", "worse", "unmeasured"]
Direction = Literal["higher", "lower", "neither"]
Effect = Literal["better", "worse", "no difference shown"]
ComparisonVerdict = Literal["improved", "regressed", "inconclusive", "no difference shown", "not comparable"]
VERDICTS: tuple[ComparisonVerdict, ...] = (
    "improved",
    "regressed",
    "inconclusive",
    "no difference shown",
    "not comparable",
)

Ends = tuple[float, float]
"""(low, high): the 95 % interval of a paired difference, candidate - baseline."""

SHOWN: tuple[Kind, ...] = ("better", "worse")
RANKS: dict[Kind, int] = {"better": 0, "worse": 1, "non-inferior": 2, "open": 2, "unmeasured": 3}
"""The order in which answers are listed."""
WORDS: dict[str, dict[Kind, str]] = {
    "fixing": {"better": "fixes more", "worse": "fixes less"},
    "breaking": {"better": "breaks less", "worse": "breaks more"},
}
BOTH: dict[Kind, str] = {
    "non-inferior": "non-inferior on fixes and breakage",
    "open": "non-inferiority on fixes and breakage not shown",
}
NOUNS = {"fixing": "fixes", "breaking": "breakage"}


@dataclass(frozen=True)
class Conclusion:
    """The answer to one question."""

    kind: Kind
    is_noninferior: bool
    """The interval excludes a loss of the margin or more; also true of `worse` if the loss is within the margin."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Both answers, and the verdict that follows from them."""

    fixing: Conclusion
    breaking: Conclusion
    margin: float
    depends_on_missing: bool = False
    """Not improved if the missing attempts had ended in the candidate's disfavour."""

    @property
    def verdict(self) -> ComparisonVerdict:
        kinds = {self.fixing.kind, self.breaking.kind}
        if self._is_improved_without_missing:
            return "inconclusive" if self.depends_on_missing else "improved"
        if "worse" in kinds:
            return "regressed"
        return "inconclusive" if "better" in kinds else "no difference shown"

    @property
    def _is_improved_without_missing(self) -> bool:
        pairs = ((self.fixing, self.breaking), (self.breaking, self.fixing))
        return any(one.kind == "better" and other.is_noninferior for one, other in pairs)

    @property
    def questions(self) -> dict[str, Conclusion]:
        """Question -> answer: first what is better, then what is worse, then what is not shown to differ."""
        both = {"fixing": self.fixing, "breaking": self.breaking}
        return dict(sorted(both.items(), key=lambda item: RANKS[item[1].kind]))

    @property
    def is_open(self) -> bool:
        """Non-inferiority is not shown in both questions."""
        return not (self.fixing.is_noninferior and self.breaking.is_noninferior)

    def to_json(self) -> dict[str, Any]:
        return {"fixing": self.fixing.kind, "breaking": self.breaking.kind, "detail": self.detail}

    @property
    def is_by_missing(self) -> bool:
        """Only the missing attempts keep the verdict from `improved`."""
        return self._is_improved_without_missing and self.depends_on_missing

    @property
    def detail(self) -> str:
        """Both answers as a noun phrase, such as `fixes more, non-inferiority on breakage not shown`."""
        if self.fixing == self.breaking and self.fixing.kind in BOTH:
            return BOTH[self.fixing.kind]
        text = ", ".join(_phrase(question, answer) for question, answer in self.questions.items())
        return f"{text}, but not in the worst case of the missing attempts" if self.is_by_missing else text

    @property
    def reason(self) -> str:
        """Both answers as a sentence without figures, such as `It breaks more`."""
        (first, one), (second, other) = self.questions.items()
        margin = f" (margin {100 * self.margin:g} points)"
        if one.kind == other.kind == "non-inferior":
            return f"It is non-inferior on fixes and on breakage, and better on neither{margin}"
        if one.kind == other.kind == "open":
            return f"It is not shown to differ, nor to be non-inferior on fixes or on breakage{margin}"
        text = f"It {_clause(first, one)}"
        if not (one.kind == "worse" and other.kind not in SHOWN):  # what is worse decides alone
            text += f"{' and' if one.is_noninferior == other.is_noninferior else ', but'} {_clause(second, other)}"
        return text + (margin if "margin" in text or "non-inferior" in text else "")


def decide(fixing: Ends | None, breaking: Ends | None, margin: float, *, depends_on_missing: bool = False) -> Decision:
    """Decide a comparison.

    Args:
        fixing, breaking: intervals of the differences in clean fixes and in breakage; None: unmeasured.
        margin: the tolerated loss, at least 0.
        depends_on_missing: an improvement would be lost in the worst case of the missing attempts.
    """
    return Decision(
        fixing=answer_of(fixing, "higher", margin),
        breaking=answer_of(breaking, "lower", margin),
        margin=margin,
        depends_on_missing=depends_on_missing,
    )


def answer_of(ends: Ends | None, better: Direction, margin: float) -> Conclusion:
    """The answer of one interval. An interval that is NaN leaves its question open."""
    if ends is None:
        return Conclusion("unmeasured", is_noninferior=False)
    low, high = ends
    is_noninferior = high < margin if better == "lower" else low > -margin
    effect = effect_of(ends, better)
    if effect != "no difference shown":
        return Conclusion(effect, is_noninferior or effect == "better")
    return Conclusion("non-inferior" if is_noninferior else "open", is_noninferior)


def effect_of(ends: Ends, better: Direction) -> Effect:
    """Better or worse if the interval excludes 0. A metric without a better direction shows neither."""
    low, high = ends
    if better == "neither" or not (low > 0 or high < 0):
        return "no difference shown"
    return "better" if (low > 0) == (better == "higher") else "worse"


def _phrase(question: str, answer: Conclusion) -> str:
    noun = NOUNS[question]
    if answer.kind in SHOWN:
        return WORDS[question][answer.kind] + (" within the margin" if _is_tolerated(answer) else "")
    kinds: dict[Kind, str] = {
        "non-inferior": f"non-inferior on {noun}",
        "open": f"non-inferiority on {noun} not shown",
        "unmeasured": f"{noun} unmeasured",
    }
    return kinds[answer.kind]


def _clause(question: str, answer: Conclusion) -> str:
    noun = NOUNS[question]
    if answer.kind in SHOWN:
        return WORDS[question][answer.kind] + (" by less than the margin" if _is_tolerated(answer) else "")
    kinds: dict[Kind, str] = {
        "non-inferior": f"is non-inferior on {noun}",
        "open": f"is not shown to be non-inferior on {noun}",
        "unmeasured": f"its {noun} {'are' if noun == 'fixes' else 'is'} unmeasured",
    }
    return kinds[answer.kind]


def _is_tolerated(answer: Conclusion) -> bool:
    return answer.kind == "worse" and answer.is_noninferior
