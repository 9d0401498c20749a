"""The policies of `regrade evaluate`: from arguments, a TOML file, folders of checkpoints and files of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from regrade.cli.console import one_line, stderr
from regrade.datasets.errors import UserError

if TYPE_CHECKING:
    from regrade.datasets.tasks import Task
    from regrade.evaluators.evaluation.sweeps import Entrant
    from regrade.evaluators.storage.manifest import PolicyRole
    from regrade.policy_training.policy_files import EndpointRow

MAX_PRINTED = 20
"""Maximum number of problems with predictions that are printed."""


@dataclass(frozen=True, kw_only=True)
class PolicyOptions:
    """The options of `regrade evaluate` that name policies."""

    words: Sequence[str]
    file: Path | None
    predictions: Sequence[Path]
    checkpoints: Sequence[Path]
    endpoint: EndpointRow
    """Shared settings of all models of the command line's endpoint."""
    name: str | None
    role: PolicyRole | None
    baseline: str | None
    controls: Sequence[str]


def entrants(options: PolicyOptions, tasks: Sequence[Task]) -> list[Entrant]:
    """All policies, with their roles.

    Raises:
        UserError: there is no policy, two have the same name, or an option names a missing policy.
    """
    policies = _named(_all_entrants(options, tasks), options.name)
    names = [entrant.name for entrant in policies]
    if not all(name.strip() for name in names):
        raise UserError("a policy without a name: give NAME=POLICY, with the name of a model or a program in POLICY")
    unprintable = next((text for one in policies for text in (one.name, one.label) if not text.isprintable()), None)
    if unprintable is not None:
        raise UserError(f"the name {unprintable!r} has characters that cannot be printed: give the policy another name")
    shown = [entrant.label or entrant.name for entrant in policies]
    same = next((text for text in shown if shown.count(text) > 1), None)
    if same is not None and len(set(names)) == len(names):
        raise UserError(f"two policies have the label {same!r}: change one of the labels")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"two policies have the name {repeated!r}: give one of them as NAME=POLICY")
    return _with_roles(policies, options)


def _all_entrants(options: PolicyOptions, tasks: Sequence[Task]) -> list[Entrant]:
    from regrade.datasets.formats.predictions import read_predictions
    from regrade.policy_training import policy_files

    policies = [policy_files.entrant_of_words(words, options.endpoint, tasks) for words in options.words]
    if options.file is not None:
        policies += policy_files.read_policies(options.file, tasks)
    for folder in options.checkpoints:
        policies += policy_files.entrants_of_checkpoints(folder)
    if options.predictions:
        _refuse_graded(options.predictions)
        files = read_predictions(options.predictions)
        ids = {task.id for task in tasks}
        files.check_known(ids)
        _print_problems(list(files.problems(ids)))
        policies += policy_files.entrants_of_predictions(files)
    if not policies:
        raise UserError("no policy: give POLICY, --policies, --checkpoints or --predictions")
    return policies


def _refuse_graded(paths: Sequence[Path]) -> None:
    """Raises UserError if a path has results that were graded already: they contain no patches."""
    from regrade.evaluators.storage.foreign_results import is_graded, is_report

    for path in paths:
        if is_graded(path) if path.is_dir() else is_report(path):
            raise UserError(
                f"{path}: graded results, not predictions: give a file of patches, or read the results with "
                "`regrade import SOURCE --out RUN`"
            )


def _named(policies: Sequence[Entrant], name: str | None) -> list[Entrant]:
    if name is None:
        return list(policies)
    if len(policies) > 1:
        raise UserError(f"--name {name!r} applies to a single policy, not to {len(policies)}: give each as NAME=POLICY")
    return [replace(policies[0], name=name)]


def _with_roles(policies: Sequence[Entrant], options: PolicyOptions) -> list[Entrant]:
    names = {entrant.name for entrant in policies}
    named = [("--baseline", options.baseline), *(("--control", name) for name in options.controls)]
    for option, name in named:
        if name is not None and name not in names:
            raise UserError(f"{option} {name!r} is none of the policies: {', '.join(sorted(names))}")
    roles: dict[str, PolicyRole] = dict.fromkeys(options.controls, "control")
    if options.baseline:
        roles[options.baseline] = "baseline"
    with_roles = [
        replace(entrant, role=roles.get(entrant.name) or options.role or entrant.role) for entrant in policies
    ]
    baselines = [entrant.name for entrant in with_roles if entrant.role == "baseline"]
    if len(baselines) > 1:
        raise UserError(f"{' and '.join(map(repr, baselines))} are both the baseline: select one with --baseline")
    return with_roles


def _print_problems(problems: Sequence[str]) -> None:
    """One line per problem, at most `MAX_PRINTED`."""
    console = stderr()
    for problem in problems[:MAX_PRINTED]:
        console.print(f"note: {one_line(problem)}", markup=False, soft_wrap=True)
    if len(problems) > MAX_PRINTED:
        console.print(f"note: and {len(problems) - MAX_PRINTED} more problems", markup=False)
