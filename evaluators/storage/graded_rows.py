"""Rows of graded results (see `regrade.evaluators.storage.rows`): what their source does not say stays missing.

- No patch, or one that a log says did not apply: nothing is fixed and nothing broken.
- No counted PASS_TO_PASS test: `broke` is missing, as breakage was not measured; a fix counts as clean.
- Resolved or not, and no more: `clean_fix` alone is known, neither `fix` nor `broke`.
- No outcome at all: all three are missing. The parameter `unreported` may count it as neither fixed nor broken.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from regrade.datasets.graded.instances import Instance
from regrade.datasets.graded.records import Findings, GradedResult, GradedTests
from regrade.datasets.graded.run_logs import FAILING, PASSING, same_form
from regrade.evaluators.storage.digests import key_of
from regrade.evaluators.storage.rows import COLUMNS, LISTS, LOST

Unreported = Literal["missing", "unresolved"]
OF_AN_INSTANCE = re.compile(r"(?P<owner>.+?)__(?P<name>[^.]+?)(?:-\w+|\.\w+\..+)")
"""Ids of SWE-bench, `owner__name-number`, and of SWE-smith, `owner__name.commit.kind__hash`."""
OUTCOME = ("fix", "fixed", "broken", "newly_skipped", "broke", "clean_fix")
NOTHING = {"fix": 0, "fixed": 0, "broken": 0, "broke": 0, "clean_fix": 0}
NO_RESULT = "no result"


@dataclass(frozen=True, kw_only=True)
class Grading:
    """What turns results into outcomes, the same for all policies of a run."""

    instances: Mapping[str, Instance] = field(default_factory=dict)
    """The instances that count; empty: those of the results."""
    set_aside: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Instance -> PASS_TO_PASS tests that the reference patch itself breaks."""
    unreported: Unreported = "missing"
    has_tests: bool = True
    """Does any result of this policy say more than whether an instance was resolved?"""

    def outcome(self, result: GradedResult, findings: Findings) -> dict[str, Any]:
        """The columns that depend on the tests."""
        targets, guards = self._tallies(result, findings)
        aside = self.set_aside.get(result.instance, frozenset())
        if guards is not None and aside and guards.failed and not guards.failed_ids:
            findings.add("results without test ids: no test could be set aside", result.instance)
        elif guards is not None and aside:
            guards = guards.without(aside)
        counts = self._counts(result.instance, targets, guards, aside)
        if targets is not None or guards is not None:
            return counts | _of_tests(result, targets, guards)
        if result.fix is not None or result.broke is not None:
            return counts | _of_flags(result.fix, result.broke, result.resolved)
        if result.lost:
            return counts | _missing(result.why)
        if result.empty or result.applied is False:
            end = "completed" if result.empty else "not applied"
            return counts | NOTHING | {"end": end, "cause": result.why}
        if self.unreported == "unresolved" and not result.resolved:
            known = NOTHING if self.has_tests else {**dict.fromkeys(OUTCOME), "clean_fix": 0}
            why = "" if result.resolved is False and not self.has_tests else result.why or NO_RESULT
            return counts | known | {"cause": why}
        if result.resolved is not None:
            return counts | _missing(result.why) | {"clean_fix": int(result.resolved)}
        return counts | _missing(result.why or NO_RESULT)

    def _tallies(self, result: GradedResult, findings: Findings) -> tuple[GradedTests | None, GradedTests | None]:
        instance = self.instances.get(result.instance)
        lists = (instance.fail_to_pass, instance.pass_to_pass) if instance else (None, None)
        if result.statuses is not None:
            if lists[0] is None and lists[1] is None:
                findings.add("run logs of instances whose lists of tests are unknown", result.instance)
                return None, None
            targets, guards = (None if tests is None else _graded(tests, result.statuses) for tests in lists)
            return targets, guards
        for tests, tally in zip(lists, (result.fail_to_pass, result.pass_to_pass), strict=True):
            if tests is not None and tally is not None and tally.has_ids:
                for test in sorted(({*tally.passed_ids, *tally.failed_ids}) - {*tests}):
                    findings.add("tests in results that the instance does not list", f"{result.instance}: {test}")
                if tests and len(tests) > tally.total:
                    findings.add("instances some of whose tests are in neither list (skipped)", result.instance)
        return result.fail_to_pass, result.pass_to_pass

    def _counts(
        self, instance: str, targets: GradedTests | None, guards: GradedTests | None, aside: frozenset[str]
    ) -> dict[str, Any]:
        known = self.instances.get(instance)
        listed = [known.fail_to_pass, known.pass_to_pass] if known else [None, None]
        remaining = [test for test in listed[1] or () if test not in aside] if listed[1] is not None else None
        return {
            "fail_to_pass": targets.total if targets else None if listed[0] is None else len(listed[0]),
            "guarded": guards.total if guards else None if remaining is None else len(remaining),
        }


def says_more_than_resolved(result: GradedResult) -> bool:
    """Has the result tests, or a fix or breakage of its own?"""
    known = (result.fail_to_pass, result.pass_to_pass, result.statuses, result.fix, result.broke)
    return any(each is not None for each in known)


def _graded(tests: Iterable[str], statuses: Mapping[str, str]) -> GradedTests:
    """The tests by a log: one that the log does not name failed, and a skipped one counts in neither list."""
    same = {same_form(name): status for name, status in statuses.items()}
    passed, failed, skipped = [], [], 0
    for test in tests:
        status = statuses.get(test) or same.get(same_form(test), "")
        if status in PASSING:
            passed.append(test)
        elif status in FAILING or not status:
            failed.append(test)
        else:
            skipped += 1
    return GradedTests.of(passed, failed, skipped)


def _of_tests(result: GradedResult, targets: GradedTests | None, guards: GradedTests | None) -> dict[str, Any]:
    fix = targets.failed == 0 if targets and targets.total else None
    broke = guards.failed > 0 if guards and guards.total else None
    known: dict[str, Any] = {
        "fixed": targets.total - targets.failed if targets else None,
        "broken": guards.failed if guards and guards.total else None,
        "broken_tests": list(guards.failed_ids) if guards and guards.total else None,
        "end": "completed",
    }
    return known | _flags(fix, broke, result.resolved)


def _of_flags(fix: bool | None, broke: bool | None, resolved: bool | None) -> dict[str, Any]:
    return {"end": "completed"} | _flags(fix, broke, resolved)


def _flags(fix: bool | None, broke: bool | None, resolved: bool | None) -> dict[str, Any]:
    """A fix is clean if no breakage was measured; without a known fix the source's own word counts, except where
    something broke."""
    clean = False if broke else resolved if fix is None else fix
    return {
        "fix": None if fix is None else int(fix),
        "broke": None if broke is None else int(broke),
        "clean_fix": None if clean is None else int(clean),
    }


def _missing(why: str) -> dict[str, Any]:
    return {**dict.fromkeys(OUTCOME), "cause": why}


def graded_row(result: GradedResult, policy: str, grading: Grading, findings: Findings) -> dict[str, Any]:
    """The row of one attempt."""
    instance = grading.instances.get(result.instance)
    outcome = grading.outcome(result, findings)
    patch = result.patch
    digest = "" if patch is None else hashlib.sha256(patch.encode("utf-8", "replace")).hexdigest()
    is_lost = outcome.get("clean_fix") is None and patch is None
    blank: dict[str, Any] = {name: [] if name in LISTS else None for name in COLUMNS}
    return {
        **blank,
        "policy": policy,
        "task": result.instance,
        "repository": (instance.repository if instance else "") or result.repository or repository_of(result.instance),
        "function": "",
        "file": "",
        "temperature": 0.0,
        "sample": result.sample or 0,
        "seed": result.run or 0,
        "task_digest": task_digest(result.instance, grading),
        "patch_digest": LOST if is_lost else digest,
        "reward_name": "" if result.reward is None else "graded elsewhere",
        "patch": patch or "",
        "completion": "",
        "status": "unscored" if result.reward is None else "scored",
        "cause": "",
        "end": "",
        "reward": result.reward,
        "empty": result.empty,
        "applied": result.applied,
        "tokens": result.tokens,
        "execution_seconds": result.seconds,
        "changed_lines": None if patch is None else changed_lines(patch),
        **outcome,
        "broken_tests": outcome.get("broken_tests") or [],
    }  # fmt: skip


def task_digest(instance: str, grading: Grading) -> str:
    """Of the instance and the tests set aside: results with and without them are not comparable."""
    return key_of(["graded", instance, *sorted(grading.set_aside.get(instance, ()))]).hex()


def repository_of(instance: str) -> str:
    """`owner/name` of an instance id; empty if it names none."""
    match = OF_AN_INSTANCE.fullmatch(instance)
    return f"{match['owner']}/{match['name']}" if match else ""


def changed_lines(patch: str) -> int:
    """Lines that a unified diff removes and adds."""
    lines = patch.split("\n")
    return sum(line.startswith(("+", "-")) and not line.startswith(("+++ ", "--- ")) for line in lines)
