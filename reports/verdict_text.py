"""The verdicts of a run as text: the headline, and one sentence for each comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from regrade.datasets.plurals import counted
from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.analysis.comparison import Comparison
from regrade.evaluators.analysis.verdicts import ComparisonVerdict, Kind
from regrade.reports.number_format import NO_BREAK, percent, points
from regrade.reports.results import Pair

CLAUSES: dict[ComparisonVerdict, str] = {
    "improved": "improves on {}",
    "regressed": "is worse than {}",
    "inconclusive": "{}",
    "no difference shown": "is not shown to differ from {}",
    "not comparable": "cannot be compared with {}",
}
ANSWERS: dict[Kind, str] = {
    "better": "better",
    "worse": "worse",
    "non-inferior": "non-inferior",
    "open": "non-inferiority not shown",
    "unmeasured": "unmeasured",
}
"""Answer of one question -> its words beside the figures of the question."""
NAMED_CANDIDATES = 3
"""Maximal number of candidates named in the headline; more are counted."""


def headline(pairs: Sequence[Pair]) -> str:
    """Return all verdicts, such as `A improves on B and is worse than C; D is worse than B`; empty without pairs.

    With many candidates: the number of candidates for each verdict against the first baseline.
    """
    by_candidate: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_candidate.setdefault(pair.candidate.name, []).append(pair)
    if len(by_candidate) > NAMED_CANDIDATES:
        counts: Counter[str] = Counter(of_one[0].best.verdict for of_one in by_candidate.values())
        listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in CLAUSES if counts[verdict])
        return f"{len(by_candidate)} candidates against {pairs[0].baseline.label}: {listed}"
    return "; ".join(map(_headline_of_candidate, by_candidate.values()))


def _headline_of_candidate(pairs: Sequence[Pair]) -> str:
    baselines: dict[str, list[str]] = {}
    last_words: dict[str, str] = {}
    for pair in pairs:
        clause = _clause(pair.best)
        baselines.setdefault(clause, []).append(pair.baseline.label)
        last_words[clause] = "or" if pair.best.verdict in ("no difference shown", "not comparable") else "and"
    clauses = [clause.format(_join(labels, last_words[clause])) for clause, labels in baselines.items()]
    text = _join(clauses, "and")
    if len(clauses) > 1 and any("," in clause for clause in clauses):  # a comma ends a clause that has one itself
        text = f"{', '.join(clauses[:-1])}, and {clauses[-1]}"
    return f"{pairs[0].candidate.label} {text}"


def _clause(comparison: Comparison) -> str:
    """The verdict on a baseline, such as `fixes more than {}, non-inferiority on breakage not shown`."""
    decision = comparison.decision
    if decision is None or comparison.verdict != "inconclusive":
        return CLAUSES[comparison.verdict]
    if decision.is_by_missing:
        return "improves on {}, but not in the worst case of the missing attempts"
    shown, _, is_open = decision.detail.partition(", ")
    return f"{shown} than {{}}, {is_open}"


def verdicts(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Return the distinct verdicts of the candidates against their first baselines."""
    firsts: dict[str, str] = {}
    for pair in pairs:
        firsts.setdefault(pair.candidate.name, pair.best.verdict)
    return tuple(dict.fromkeys(firsts.values()))


def _join(words: Sequence[str], last: str) -> str:
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def sentence(pair: Pair) -> str:
    """Return the clean fixes and the breakage of both policies, or the reason why they are not comparable."""
    comparison, candidate, baseline = pair.best, pair.candidate.label, pair.baseline.label
    if not comparison.metrics:
        return f"{comparison.reason[:1].upper()}{comparison.reason[1:]}."
    clean, breakage = (comparison.metrics.get(metric.name) for metric in (m.FIX_AND_CLEAN, m.BREAKAGE_INCIDENCE))
    text = (
        f"{'Against the control, mean' if pair.baseline.role == 'control' else 'Mean'} over all attempts at "
        f"{counted(comparison.n_tasks, 'task')} (intention to treat, equal weight of tasks):"
    )
    if clean is not None:
        text += (
            f" {percent(clean.candidate)} clean fixes by {candidate} and {percent(clean.baseline)} by {baseline}, "
            f"{points(clean)}."
        )
    text += (
        " Breakage is unmeasured."
        if breakage is None
        else f" Breakage in {percent(breakage.candidate)} of the attempts of {candidate} and in "
        f"{percent(breakage.baseline)} of those of {baseline}, {points(breakage)}."
    )
    return text.replace(" %", f"{NO_BREAK}%")
