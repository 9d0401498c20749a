"""What is compared: the sizes that all variants share, and a variant, which says what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from regrade.datasets.errors import UserError
from regrade.policy_training.cascade.settings import CascadeSettings
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
from regrade.policy_training.recipe.settings import Recipe
from regrade.policy_training.recipe.sharing import has_finished
from regrade.policy_training.trainers.settings import (
    OnlineSettings,
    PPOSettings,
    SFTSettings,
    StabilitySettings,
    TrainerSettings,
)

Start = Literal["sft", "expert-iteration"]
TRAINED, JUDGED = "train", "judge"
"""The phases of a variant's run."""
SURVEYED = "survey"
"""The last phase of a start's run."""


@dataclass(frozen=True, kw_only=True)
class VariantSettings(Recipe):
    """The sizes: of the start, of each training, and of the verdict."""

    demonstrations: int = 32
    """Tasks whose references SFT learns from. Default: 32."""
    tests_only: int = 160
    """Tasks of expert iteration, by their tests alone. Default: 160."""
    surveyed: int = 240
    """Further tests-only tasks that the start answers, to find those that it sometimes fixes. Default: 240."""
    survey_samples: int = 4
    """Attempts per surveyed task, at temperature 1. Default: 4."""
    least_tasks: int = 48
    """Tasks of the trainings: those that the survey fixed and as many others, or, if they are fewer than this, all that
    it changed. Default: 48."""
    temperature: float = 0.6
    """Of all policies, when judged. Default: 0.6."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train from the start; what it does not name is the same for all.

    Raises:
        UserError: expert iteration or a reward model, or SFT without `as_long_as`.
    """

    name: str
    """Of its folders."""
    label: str
    """In the tables."""
    settings: TrainerSettings | None = None
    """Of `grpo`, `rloo`, `reinforce`, `ppo`, or of `sft` on the demonstrations. Default: None: the start, untrained."""
    start: Start = "expert-iteration"
    """The checkpoint to start from. Default: `expert-iteration`."""
    reward: TrainingReward = DEFAULT_TRAINING_REWARD
    """Default: `DEFAULT_TRAINING_REWARD`."""
    stability: StabilitySettings | None = field(default_factory=StabilitySettings)
    """The guard. Default: its own defaults."""
    probed: int = 0
    """Validation tasks that the guard probes. Default: 0: no held-out probe."""
    cascade: CascadeSettings | None = None
    """When the execution of an attempt stops early. Default: none."""
    as_long_as: str = ""
    """The variant whose wall time, from SFT on, SFT is given. Default: none: a number of steps."""

    def __post_init__(self) -> None:
        kinds = (OnlineSettings, PPOSettings, SFTSettings)
        if self.settings is not None and not isinstance(self.settings, kinds):
            raise UserError(f"variant {self.name!r}: {self.settings.algorithm} is not compared here; give another one")
        if isinstance(self.settings, SFTSettings) != bool(self.as_long_as):
            raise UserError(f"variant {self.name!r}: give as_long_as for sft, and for nothing else")

    def to_json(self) -> dict[str, Any]:
        """All that its result depends on, beside the shared sizes."""
        if self.settings is None:
            return {"start": self.start}
        settings = {"algorithm": self.settings.algorithm, **asdict(self.settings)}
        guard = None if self.stability is None else asdict(self.stability)
        reward = None if isinstance(self.settings, SFTSettings) else self.reward.to_json()
        return {
            "start": self.start,
            "settings": settings,
            "reward": reward,
            "stability": guard,
            "probed": self.probed,
            "cascade": None if self.cascade is None else self.cascade.to_json(),
            "as_long_as": self.as_long_as,
        }


@dataclass(frozen=True)
class VariantJob:
    """One run: the start of a seed, or one variant with it."""

    variant: str
    """Name; empty: the start."""
    seed: int

    def folder(self, out: Path) -> Path:
        return start_folder(out, self.seed) if not self.variant else variant_folder(out, self.variant, self.seed)

    def is_done(self, out: Path) -> bool:
        return has_finished(self.folder(out), JUDGED if self.variant else SURVEYED)


def start_folder(out: Path, seed: int) -> Path:
    """The run with the checkpoints `sft` and `expert-iteration`, from which all variants start."""
    return out / "starts" / f"s{seed}"


def variant_folder(out: Path, name: str, seed: int) -> Path:
    """The run with the rows of a variant; its training is a run of its own in there (`training_folder`)."""
    return out / "variants" / f"{name}-s{seed}"


def training_folder(out: Path, name: str, seed: int) -> Path:
    return variant_folder(out, name, seed) / "training"


def named(variants: Iterable[Variant]) -> Mapping[str, Variant]:
    """Name -> variant, in order. Raises UserError if two have one name, or one needs a variant that is not there."""
    by_name: dict[str, Variant] = {}
    for variant in variants:
        if variant.name in by_name:
            raise UserError(f"two variants are called {variant.name!r}: rename one")
        by_name[variant.name] = variant
    for variant in by_name.values():
        if variant.as_long_as and variant.as_long_as not in by_name:
            raise UserError(f"variant {variant.name!r} takes as long as {variant.as_long_as!r}: there is no such one")
    return by_name


def jobs_of(variants: Mapping[str, Variant], names: Sequence[str], seeds: Sequence[int]) -> list[VariantJob]:
    """The starts, then the variants by name and those that they need; all of one seed before the next."""
    needed = [need for name in names for need in (variants[name].as_long_as, name) if need]
    jobs = [VariantJob(name, seed) for seed in seeds for name in dict.fromkeys(needed)]
    return [*(VariantJob("", seed) for seed in seeds), *jobs]


def needs_of(job: VariantJob, variants: Mapping[str, Variant]) -> list[VariantJob]:
    """The jobs that must be done before."""
    if not job.variant:
        return []
    timed_by = variants[job.variant].as_long_as
    return [VariantJob(name, job.seed) for name in (["", timed_by] if timed_by else [""])]
