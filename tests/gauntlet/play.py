"""Runs every exploit and its honest twin against every scorer, in every sandbox."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from gauntlet import naive
from gauntlet.attack import LAYERS, Attack, Changes
from gauntlet.attacks.outside import STATE
from gauntlet.levels import Level
from gauntlet.target import FILES, Target
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.sandboxes import KINDS, Sandbox
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import End, EvidenceSet, Integrity, TestRun, TestStatus, Verification

TAMPERED = "while the tests ran, "
"""The detail of a run that the watch stopped begins so."""
ProgressReport = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """The verdict of Regrade at one level on one patch."""

    rewarded: bool
    """It was rewarded like an honest fix."""
    resolved: bool
    """The tests alone would have rewarded it."""
    value: float | None
    caught_by: str = ""
    reason: str = ""
    assured: bool = True
    """The verdict reaches the level, regardless of the scan of the diff."""
    allowed: bool = True
    """The task's reference reaches the level, so another fix can reach it."""
    signs: tuple[str, ...] = ()
    """`kind file:line` of each sign in the diff; in brackets if it closes no gate."""


@dataclass
class Row:
    """All results of one exploit and its honest twin."""

    attack: Attack
    naive: dict[str, bool] = field(default_factory=dict)
    """Scorer -> was the exploit rewarded?"""
    naive_twin: dict[str, bool] = field(default_factory=dict)
    levels: dict[str, dict[str, Verdict]] = field(default_factory=dict)
    """Level -> sandbox -> verdict."""
    twins: dict[str, dict[str, Verdict]] = field(default_factory=dict)
    """The same for its honest twin."""
    not_played: dict[str, str] = field(default_factory=dict)
    """Sandbox -> reason."""

    def rewarded(self, level: str) -> bool:
        """Was it rewarded in any isolated sandbox? A plain process gives no assurance."""
        return any(verdict.rewarded for kind, verdict in self.levels.get(level, {}).items() if _isolates(kind))

    @property
    def unrewarded_twins(self) -> Iterator[tuple[str, str, Verdict]]:
        """Level, sandbox and verdict of each twin that was not rewarded."""
        return ((level, kind, v) for level, by in self.twins.items() for kind, v in by.items() if not v.rewarded)

    def to_json(self) -> dict[str, object]:
        attack = self.attack
        return {
            "row": attack.row, "name": attack.name, "how": attack.how, "layer": attack.layer, "bug": attack.bug,
            "rewarded_by": self.naive, "twin_rewarded_by": self.naive_twin,
            "levels": _plain(self.levels), "twins": _plain(self.twins), "not_played": self.not_played,
        }  # fmt: skip


def play(
    attacks: Sequence[Attack],
    levels: Sequence[Level],
    sandboxes: Sequence[Sandbox],
    folder: Path,
    *,
    workers: int = 2,
    everywhere: bool = False,
    report: ProgressReport = lambda _: None,
) -> list[Row]:
    """Run the attacks; the common scorers only in the first sandbox, which makes no difference to them.

    Args:
        everywhere: run levels that a reward must require in every isolated sandbox, not only in the first.
    """
    target = Target(folder)
    rows = [Row(attack) for attack in attacks]
    with _server() as port:
        report(f"{len(rows)} exploits and their honest twins, by the common scorers, in {sandboxes[0].name}")
        _play_naive(rows, target, sandboxes[0], folder, port, workers)
        for sandbox in sandboxes:
            for row in rows:
                if row.attack.harms and not sandbox.isolated:
                    row.not_played[sandbox.name] = row.attack.harms
            played = [row for row in rows if sandbox.name not in row.not_played]
            for level in levels:
                if level.is_required and not (sandbox.isolated and (everywhere or sandbox is sandboxes[0])):
                    continue  # a plain process assures nothing
                report(f"the same by Regrade, {level.name}, in {sandbox.name}")
                cache = folder / "caches" / sandbox.name.replace(":", "-")  # shared, so that no level repeats a run
                with level.make(sandbox, cache, workers) as scorer:
                    together = [row for row in played if row.attack.before is None]
                    _judge(together, target, level, scorer.gather, sandbox.name, port)
                cache = cache.with_name(f"{cache.name}-one")
                with level.make(sandbox, cache, 1) as scorer:  # one worker, so that candidates run in sequence
                    for row in [row for row in played if row.attack.before is not None]:
                        _judge([row], target, level, scorer.gather, sandbox.name, port)
                        Path(STATE).unlink(missing_ok=True)
    return rows


def _play_naive(rows: list[Row], target: Target, sandbox: Sandbox, folder: Path, port: int, workers: int) -> None:
    python = naive.interpreter()

    def one(numbered: tuple[int, Row]) -> None:
        number, row = numbered
        attack, checkout = row.attack, target.checkout(row.attack.bug)
        if attack.harms and not sandbox.isolated:
            return
        for kind, last in (("exploit", attack.patch(checkout)), ("twin", attack.honest(checkout))):
            run_folder = folder / "naive" / f"{number}-{kind}"
            run_folder.mkdir(parents=True)
            patches = [*_earlier(attack, target), _at(last, port)]
            outcome = naive.run(attack, patches, target, sandbox, python, run_folder)
            rewards = outcome.rewards(target.tasks[attack.bug])
            if kind == "exploit":
                row.naive = rewards
            else:
                row.naive_twin = rewards

    for row in rows:
        target.checkout(row.attack.bug)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, enumerate(rows)))


def _judge(
    rows: Sequence[Row], target: Target, level: Level, gather: Callable[..., list[EvidenceSet]], name: str, port: int
) -> None:
    jobs: list[tuple[Task, Patch]] = []
    for row in rows:
        attack, checkout = row.attack, target.checkout(row.attack.bug)
        task = target.tasks[attack.bug]
        if attack.wall_seconds:
            task = target.with_limits(attack.bug, attack.wall_seconds)
        for patch in _earlier(attack, target):
            gather([(task, patch)], level.reward.needs)
        jobs += [(task, _at(attack.patch(checkout), port)), (task, _at(attack.honest(checkout), port))]
    evidence = gather(jobs, level.reward.needs)
    for row, exploit, twin in zip(rows, evidence[::2], evidence[1::2], strict=True):
        row.levels.setdefault(level.name, {})[name] = verdict_of(row.attack, level, exploit)
        row.twins.setdefault(level.name, {})[name] = verdict_of(row.attack, level, twin)


def verdict_of(attack: Attack, level: Level, evidence: EvidenceSet) -> Verdict:
    """The reward's verdict on the evidence, and the layer that caught the exploit."""
    breakdown = level.reward.evaluate(evidence)
    run: TestRun | None = evidence.records.get(TestRun)
    integrity: Integrity | None = evidence.records.get(Integrity)
    all_signs = integrity.signs if integrity else ()
    signs = tuple(
        f"{sign.kind} {sign.file}:{sign.line}" if sign.conclusive else f"({sign.kind} {sign.file}:{sign.line})"
        for sign in all_signs
    )
    resolved = run is not None and run.resolved and run.end is End.COMPLETED
    rewarded = breakdown.value == 1.0
    seen: Verification | None = evidence.records.get(Verification)
    assured = not level.is_required or (seen is not None and seen.reaches(level.name))
    allowed = not level.is_required or seen is None or reaches(seen.reachable, level.name)
    verdict = Verdict(rewarded, resolved, breakdown.value, assured=assured, allowed=allowed, signs=signs)
    if rewarded:
        return verdict
    if run is None:
        return replace(verdict, caught_by="unscored", reason=breakdown.cause or "")
    if resolved:
        if not assured:
            return replace(verdict, caught_by=_doubt(seen), reason=seen.why[:160] if seen else breakdown.cause or "")
        by = LAYERS["S"] if any(sign.conclusive for sign in all_signs) else "the build"
        return replace(verdict, caught_by=by, reason=breakdown.cause or "")
    return replace(verdict, caught_by=_catcher(attack, run, integrity), reason=_why(run))


def reaches(level: str, required: str) -> bool:
    return not level or AssuranceLevel(level) >= required


def _catcher(attack: Attack, run: TestRun, integrity: Integrity | None) -> str:
    if run.end is End.NOT_APPLIED:
        return "strict patches"
    if run.end in (End.TIMEOUT, End.MEMORY):
        return "the clock and the limits are outside"
    if run.detail.startswith(TAMPERED):
        return LAYERS["W"]
    if run.end is not End.COMPLETED:
        return "leaving early is no pass"
    if integrity and integrity.ignored_files:
        return LAYERS["R"]
    lost = {run.outcomes[test].status for test in (*run.fail_to_pass, *run.broken)} - {TestStatus.PASSED}
    if lost <= {TestStatus.SKIPPED, TestStatus.XFAILED}:
        return "skipped is no pass"
    if lost <= {TestStatus.MISSING, TestStatus.ERROR}:
        return "missing is no pass"
    return LAYERS[attack.layer.split()[0]]


def _doubt(seen: Verification | None) -> str:
    """The layer because of which the verdict does not reach the level."""
    if seen is None:
        return "unscored"
    if seen.refuted:
        return LAYERS["X"]
    if seen.sprung:
        return "tripwires"
    return LAYERS["H"] if seen.level == "out-of-process" else "the level is not reached"


def _why(run: TestRun) -> str:
    if run.detail:
        return run.detail[:160]
    lost = [test for test in (*run.broken, *run.fail_to_pass) if run.outcomes[test].status is not TestStatus.PASSED]
    return f"{lost[0].rpartition('::')[2]} {run.outcomes[lost[0]].status.value}" if lost else ""


def _earlier(attack: Attack, target: Target) -> list[Patch]:
    if attack.before is None:
        return []
    changes: Changes = attack.before
    return [replace(attack, changes=changes, text="").patch(target.checkout(attack.bug))]


def _at(patch: Patch, port: int) -> Patch:
    return Patch(patch.text.replace("@PORT@", str(port)))


def _isolates(name: str) -> bool:
    return KINDS[name.partition(":")[0]]().isolated


def _plain(found: dict[str, dict[str, Verdict]]) -> dict[str, dict[str, object]]:
    return {level: {kind: asdict(verdict) for kind, verdict in by.items()} for level, by in found.items()}


@contextlib.contextmanager
def _server() -> Iterator[int]:
    """Serve the fixed module on this machine; yields the port."""

    class Fix(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(FILES["shop/prices.py"].encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fix)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
