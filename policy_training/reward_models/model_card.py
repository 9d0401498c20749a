"""The model card of a reward model, in Markdown: what it learned from, how good it is, and what it is not for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from regrade.datasets.plurals import counted
from regrade.evaluators.analysis.prediction_quality import Figure
from regrade.evaluators.storage.journal import write_atomically
from regrade.evaluators.storage.labelled_attempts import Component, LabelledAttempt
from regrade.policy_training.reward_models.quality import CONFIDENT, DRAWS, Quality


def write_card(path: Path, text: str) -> None:
    """Write a card atomically."""
    write_atomically(path, text)


def card(
    name: str,
    about: Mapping[str, str],
    training: Sequence[LabelledAttempt],
    quality: Quality | None,
) -> str:
    """The whole card.

    Args:
        about: name of a fact (kind, base, versions, seed, command) -> its value.
        training: the attempts that it learned from.
        quality: on repositories that it never saw; None: it was not tested.
    """
    parts = [
        f"# Reward model `{name}`",
        "It predicts, without executing anything, whether a patch fixes its task and breaks nothing. Its predictions "
        "spare executions and rank candidates; they certify nothing.",
        _table(("", ""), [(key, value) for key, value in about.items()]),
        "## Training data\n\n" + training_data(training),
    ]
    parts += [quality_report(quality)] if quality is not None else [UNTESTED]
    parts.append(LIMITS)
    return "\n\n".join(parts) + "\n"


UNTESTED = (
    "## Quality\n\nIt was not tested: no executed attempts at other repositories were given. Test it with "
    "`regrade reward-model test FOLDER RUN` before you use it."
)
LIMITS = """## Limits

- The attempts are patches of planted bugs by rule unless the table above says otherwise; patches of another policy may
  be ranked worse. Test the model on executed attempts of your own policy.
- A policy that is trained against the model finds what it mistakes: audit with executions, and stop when both part.
- Doubt is the disagreement of the ensemble and what the calibration leaves open. It is no bound for repositories
  unlike those of the training."""


def training_data(attempts: Sequence[LabelledAttempt]) -> str:
    """The attempts by repository and by origin."""
    tasks = len({attempt.group for attempt in attempts})
    lines = [f"{counted(len(attempts), 'attempt')} at {counted(tasks, 'task')}, each patch of a task once."]
    repositories = Counter(attempt.repository for attempt in attempts)
    rows = [(f"{name}", *_of(attempts, "repository", name)) for name in sorted(repositories)]
    lines.append(_table(("repository", "attempts", "clean fixes", "breaking"), rows))
    origins = Counter(attempt.origin for attempt in attempts)
    rows = [(f"{name}", *_of(attempts, "origin", name)) for name in sorted(origins)]
    lines.append(_table(("origin", "attempts", "clean fixes", "breaking"), rows))
    return "\n\n".join(lines)


def _of(attempts: Sequence[LabelledAttempt], field: str, value: str) -> tuple[str, str, str]:
    own = [attempt for attempt in attempts if getattr(attempt, field) == value]
    return str(len(own)), _share(own, Component.CLEAN), _share(own, Component.BREAKS)


def _share(attempts: Sequence[LabelledAttempt], component: Component) -> str:
    labels = [attempt.labels[component] for attempt in attempts if component in attempt.labels]
    return f"{100 * sum(labels) / len(labels):.1f} %" if labels else "-"


def quality_report(quality: Quality) -> str:
    """The section on quality."""
    return "\n\n".join(
        [
            *_figures(quality),
            *_against_predictors(quality),
            *_best_of_n(quality),
            *_by_component(quality),
            *_by_origin(quality),
            *_calibration(quality),
            *(_by_repository(quality) if quality.repositories else ()),
        ]
    )


def _figures(quality: Quality) -> tuple[str, ...]:
    unread = f"; {quality.unread} more could not be read" if quality.unread else ""
    rows = [
        ("AUC", _shown(quality.auc)),
        ("pair accuracy within a task", _shown(quality.pair_accuracy)),
        ("expected calibration error", _shown(quality.calibration_error)),
        ("Brier score", _shown(quality.brier)),
        ("attempts whose interval holds the share of their bin", f"{100 * quality.covered:.0f} %"),
    ]
    return (
        f"## Quality on {', '.join(quality.repositories) or 'one repository'}, never trained on",
        f"{counted(quality.attempts, 'attempt')} at {counted(quality.tasks, 'task')}, {100 * quality.clean:.1f} % of "
        f"them clean fixes{unread}. In brackets: 95 % intervals for new tasks of these repositories, with functions as "
        "clusters.",
        _table(("figure", "value"), rows),
    )


def _against_predictors(quality: Quality) -> tuple[str, ...]:
    columns = ("predictor", "attempts", "AUC", "gain of the model in AUC", "pair accuracy", "best of 8", "beaten")
    rows = [
        (
            each.name,
            str(each.attempts),
            _shown(each.auc),
            _shown(each.auc_gain, signed=True),
            _shown(each.pair_accuracy),
            _shown(each.best_of[DRAWS[-1]]),
            "yes" if each.is_beaten else "no",
        )
        for each in quality.baselines
    ]
    heading = "### Against simpler predictors\n\nA model that does not beat one of these is not worth its cost."
    return heading, _table(columns, rows)


def _best_of_n(quality: Quality) -> tuple[str, ...]:
    rows = [
        ("the model", *(_shown(quality.best_of[n]) for n in DRAWS)),
        *((each.name, *(_shown(each.best_of[n]) for n in DRAWS)) for each in quality.baselines),
        ("execution", *(_shown(quality.best_possible[n]) for n in DRAWS)),
    ]
    heading = "### Best of n\n\nShare of tasks whose selected attempt is a clean fix. n = 1 is a random attempt."
    return heading, _table(("selected by", *(f"n = {n}" for n in DRAWS)), rows)


def _by_component(quality: Quality) -> tuple[str, ...]:
    columns = ("component", "attempts", "positive", "AUC", "calibration error", "Brier")
    rows = [
        (
            str(each.component),
            str(each.attempts),
            f"{100 * each.positive:.1f} %",
            _shown(each.auc),
            _shown(each.calibration_error),
            _shown(each.brier),
        )
        for each in quality.components
    ]
    return "### By component", _table(columns, rows)


def _by_origin(quality: Quality) -> tuple[str, ...]:
    rows = [
        (str(each.origin), str(each.attempts), _shown(each.auc), f"{100 * each.confident:.1f} %")
        for each in quality.origins
    ]
    heading = (
        "### What it takes wrong patches for\n\nAUC: clean fixes against the attempts of this origin that are none."
    )
    return heading, _table(("origin", "attempts", "AUC", f"probability above {CONFIDENT:g}"), rows)


def _calibration(quality: Quality) -> tuple[str, ...]:
    rows = [(f"{each.mean:.2f}", f"{each.share:.2f}", str(each.attempts)) for each in quality.reliability]
    return "### Calibration", _table(("mean probability", "share of clean fixes", "attempts"), rows)


def _by_repository(quality: Quality) -> tuple[str, ...]:
    columns = ("repository", "tasks", "attempts", "AUC", "pair accuracy", "calibration error", "Brier", "best of 8")
    rows = [
        (
            name,
            str(each.tasks),
            str(each.attempts),
            _shown(each.auc),
            _shown(each.pair_accuracy),
            _shown(each.calibration_error),
            _shown(each.brier),
            _shown(each.best_of[DRAWS[-1]]),
        )
        for name, each in quality.repositories.items()
    ]
    return "### By repository", _table(columns, rows)


def _shown(found: Figure, *, signed: bool = False) -> str:
    if math.isnan(found.value):
        return "not defined"
    sign = "+" if signed else ""
    low, high = (f"{end:{sign}.3f}" for end in found.interval)
    value = f"{found.value:{sign}.3f}"
    return value if math.isnan(found.interval.low) else f"{value} [{low}, {high}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'-|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
