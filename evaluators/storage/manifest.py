"""The manifest of a run: all that is needed to repeat it and to interpret its results."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

import msgspec

from regrade.datasets.json_structs import converted

PolicyRole = Literal["baseline", "control", "candidate", "checkpoint", "upper bound", "scripted"]
"""Role of a policy in a comparison. Baseline: the candidate must beat it. Control: it rules out a simpler explanation,
such as more training time. Checkpoint: a state of the candidate during training. Upper bound: it saw data that the
candidate may not see. Scripted: it follows a fixed rule (empty patches, the reference)."""

DECISIVE: Mapping[str, int] = {"regrade": 3, "python": 2, "pytest": 1}
"""Package that affects the outcomes of tests -> number of parts of its version that must agree."""

ADVICE = "restore it or start the run in a new folder"
"""Advice for a manifest that cannot be read."""

RECORDED_PACKAGES = ("regrade", "numpy", "pandas", "pytest", "scipy", "statsmodels", "torch", "transformers", "trl")


@dataclass(frozen=True, kw_only=True)
class PolicyEntry:
    """One policy of a run, for the report; its rows are in `evaluations/`."""

    role: PolicyRole
    best_temperature: Annotated[float, msgspec.Meta(ge=0, le=1e300)] = 0.0
    """Chosen on validation tasks, never on the held-out ones; 0 is greedy."""
    label: str = ""
    """Name in reports; empty: the policy's own name."""
    chosen: bool = False
    """Was the temperature chosen on validation tasks? If not, it is the only or the lowest one evaluated."""
    series: str = ""
    """Of a checkpoint: its training run."""
    step: int | None = None
    """Of a checkpoint: its training step."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Source of the policy (name of a model, endpoint, command) as plain JSON, without API keys."""


@dataclass(frozen=True)
class Phase:
    """Wall time of one phase of a run, summed over all attempts to complete it."""

    seconds: float = 0.0
    done: bool = False


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All information needed to repeat a run and to interpret its results."""

    name: str = ""
    started: str = ""
    """UTC, ISO 8601."""
    regime: str = ""
    """What the policies learned from, in a sentence for the first screen of the report."""
    model: str = ""
    sandbox: str = ""
    assurance: str = ""
    seeds: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    """Python, the platform and each package that may affect a result."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Name of an input (a set of tasks, a model's weights) -> its digest."""
    policies: Mapping[str, PolicyEntry] = field(default_factory=dict)
    phases: Mapping[str, Phase] = field(default_factory=dict)
    """In the order of their start."""
    wall_seconds: float = 0.0
    """Wall time of a run whose phases overlap, over all attempts to complete it; 0: they do not."""
    share_of_step: Mapping[str, float] = field(default_factory=dict)
    """execution, generation, training -> share of the wall time of RL steps; the shares add up to 1."""
    notes: tuple[str, ...] = ()
    """Notes for readers of the report, such as a phase that a time limit ended, or an unusual setting."""

    @property
    def total_seconds(self) -> float:
        """Wall time of the run."""
        return self.wall_seconds or sum(phase.seconds for phase in self.phases.values())

    def to_json(self) -> dict[str, Any]:
        """`phases` becomes name -> seconds; `phases_done` lists the completed phases."""
        values = asdict(self)
        values["phases"] = {name: round(phase.seconds, 3) for name, phase in self.phases.items()}
        values["phases_done"] = [name for name, phase in self.phases.items() if phase.done]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str = "manifest") -> Manifest:
        """Raises UserError, which names `source` and the invalid entry."""
        plain = {**values, "policies": {}} if isinstance(values.get("policies", {}), dict) else values
        converted(plain, _StoredManifest, f"{source}: damaged", ADVICE)
        fields = {key: values[key] for key in cls.__dataclass_fields__ if key in values}
        done = set(values.get("phases_done", ()))
        fields["policies"] = {name: _policy(name, entry, source) for name, entry in values.get("policies", {}).items()}
        seconds = values.get("phases", {})
        fields["phases"] = {name: Phase(float(spent), name in done) for name, spent in seconds.items()}
        fields["notes"] = tuple(values.get("notes", ()))
        return cls(**fields)


def installed_versions() -> dict[str, str]:
    """Python, the platform, and the packages of `RECORDED_PACKAGES` that are installed."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in RECORDED_PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def significant(versions: Mapping[str, str], name: str) -> list[str]:
    """The parts of a package's version that must agree."""
    return str(versions.get(name, "unknown")).split(".")[: DECISIVE[name]]


class _StoredManifest(msgspec.Struct):
    """A manifest on disk; `_policy` checks each entry of `policies`."""

    name: str = ""
    started: str = ""
    regime: str = ""
    model: str = ""
    sandbox: str = ""
    assurance: str = ""
    seeds: dict[str, int] = {}
    versions: dict[str, str] = {}
    configuration: Any = {}
    inputs: dict[str, str] = {}
    policies: dict[str, Any] = {}
    phases: dict[str, Annotated[float, msgspec.Meta(ge=0, le=1e300)]] = {}
    phases_done: list[str] = []
    wall_seconds: Annotated[float, msgspec.Meta(ge=0, le=1e300)] = 0.0
    share_of_step: dict[Literal["execution", "generation", "training"], Annotated[float, msgspec.Meta(ge=0, le=1)]] = {}
    notes: list[str] = []


def _policy(name: str, entry: Any, source: str) -> PolicyEntry:
    if isinstance(entry, PolicyEntry):
        return entry
    return converted(entry, PolicyEntry, f"{source}, policies, {name!r}", ADVICE)
