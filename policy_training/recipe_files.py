"""Recipes of training as TOML files: read strictly, before any model is loaded.

A key is a field of a dataclass here, and a table a field that is one itself: `[settings]` of the algorithm, `[agent]`,
`[step_rewards]`, `[cascade]`, `[stability]`. What a table leaves out keeps its default. docs/recipes.md lists all keys.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from regrade.datasets.errors import UserError
from regrade.datasets.input_files import read_input
from regrade.datasets.json_structs import converted
from regrade.datasets.json_text import shown
from regrade.policy_training.cascade.settings import CascadeSettings
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.step_rewards import StepRewards
from regrade.policy_training.policies.models import EMBEDDED
from regrade.policy_training.trainers.settings import (
    ONLY_OF,
    Algorithm,
    ExpertIterationSettings,
    OnlineAlgorithm,
    OnlineSettings,
    PPOSettings,
    RewardModelSettings,
    SFTSettings,
    StabilitySettings,
    TrainerSettings,
)

T = TypeVar("T")

SHIPPED = Path(__file__).with_name("recipes")
LARGEST_RECIPE = 1 << 20
"""Bytes of a file."""
MOST, MOST_MINUTES, LARGEST_SEED = 1_000_000, 1e7, 2**32 - 1

_Count = Annotated[int, msgspec.Meta(ge=1, le=MOST)]
_Seed = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_SEED)]
_Minutes = Annotated[float, msgspec.Meta(gt=0, le=MOST_MINUTES)]
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Split = Literal["demonstrations", "tests_only", "validation"]

SETTINGS: Mapping[Algorithm, type[TrainerSettings]] = {
    "sft": SFTSettings,
    "expert-iteration": ExpertIterationSettings,
    "grpo": OnlineSettings,
    "rloo": OnlineSettings,
    "reinforce": OnlineSettings,
    "ppo": PPOSettings,
    "reward-model": RewardModelSettings,
}
"""Algorithm -> the class of its settings."""


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """What to train on what, how, and for how long: a recipe file, checked."""

    settings: TrainerSettings
    """Of the algorithm."""
    model: _Text = EMBEDDED
    """`smollm2-135m`, the folder of a checkpoint, or a model on the Hugging Face hub. Default: `smollm2-135m`."""
    tasks: _Text | None = None
    """A file of tasks, or the ready-made ones: `builtin` or `cross-module`. Default: `builtin`."""
    split: _Split | None = None
    """Of tasks that have splits, as the ready-made ones do: `demonstrations`, `tests_only` or `validation`; tasks
    without splits are all learned from. Default: `demonstrations` for sft, `tests_only` for all other algorithms."""
    limit: _Count | None = None
    """Tasks at most, drawn by the seed; >= 1. Default: all."""
    demonstrations: Path | None = None
    """A file of `regrade tasks demonstrations` that sft learns, instead of the references of tasks. Default: none."""
    steps: _Count | None = None
    """Optimizer steps at most; >= 1. A recipe needs `steps`, `minutes` or both, unless its trainer takes no steps (a
    reward model of `components`). Default: no limit."""
    minutes: _Minutes | None = None
    """Wall time at most, in minutes; > 0. Default: no limit."""
    save_every: _Count | None = None
    """Optimizer steps between checkpoints along the training; >= 1. Default: only the last one."""
    lora_rank: _Count | None = None
    """Rank of the adapters (LoRA) that alone learn, beside frozen weights; >= 1. Default: all weights learn."""
    gradient_checkpointing: bool = False
    """Compute what a layer keeps for the gradient a second time, instead of keeping it: less memory, and a
    pass computes a third more. Adapters do so anyway. Default: `false`."""
    reward: _Text | None = None
    """What an attempt is paid, not for sft: a built-in reward, or FILE:NAME of a `Reward` or a `TrainingReward`.
    Default: 1 for a clean fix, a part for a partial one, less than nothing for breakage."""
    probe: _Text | None = None
    """A file of held-out tasks, of which nothing is learned: the stability guard probes fixes and breakage on them, and
    the checkpoint has the best weights by this probe. Default: none for your own tasks, 32 of the split `validation`
    for ready-made ones."""
    stability: StabilitySettings = field(default_factory=StabilitySettings)
    """The stability guard. Default: its own defaults."""
    seed: _Seed = 0
    """Of all random choices; 0 to 4,294,967,295. Default: 0."""
    agent: AgentFormat | None = None
    """Train an agent of several turns. Default: as the checkpoint in `model` was trained; otherwise one answer."""
    step_rewards: StepRewards | None = None
    """What an agent's steps cost, and shaping, for grpo, rloo, reinforce and ppo. Default: the outcome alone."""

    cascade: CascadeSettings | None = None
    """Judge attempts in stages, and run no further than their pay needs; not for sft and reward-model. Default: all
    tests that a change can reach are run."""

    def __post_init__(self) -> None:
        if self.cascade is not None and self.algorithm in ("sft", "reward-model"):
            raise UserError(
                "TrainingRecipe: cascade is for policies that learn from their own attempts, not for "
                f"{self.algorithm}; leave it out"
            )
        if self.algorithm == "sft" and self.reward is not None:
            raise UserError(f"TrainingRecipe: reward is {self.reward!r}, but sft executes nothing; leave it out")
        if self.demonstrations is not None and self.algorithm != "sft":
            raise UserError(f"TrainingRecipe: demonstrations are for sft, not for {self.algorithm}; leave them out")
        if self.demonstrations is not None and (self.tasks is not None or self.limit is not None):
            raise UserError("TrainingRecipe: demonstrations have all that sft learns; leave out tasks and limit")

    @property
    def algorithm(self) -> Algorithm:
        return self.settings.algorithm

    @property
    def needs_limit(self) -> bool:
        """Does its trainer take optimizer steps until a limit?"""
        return not (isinstance(self.settings, RewardModelSettings) and self.settings.objective == "components")

    @property
    def seconds(self) -> float | None:
        return None if self.minutes is None else 60 * self.minutes


def read_recipe(path: str | Path) -> TrainingRecipe:
    """The recipe in a TOML file, or the shipped one of that name. Paths in it are relative to its folder.

    Raises:
        UserError: there is no such file, it is no TOML, a key is unknown, or a value is out of its range.
    """
    file = Path(path)
    if not file.exists() and str(path) in shipped_recipes():
        file = SHIPPED / file
    try:
        text = read_input(file, LARGEST_RECIPE).decode("utf-8-sig")
        table = tomllib.loads(text)
    except OSError as error:
        known = ", ".join(shipped_recipes())
        raise UserError(f"recipe {str(path)!r} cannot be read: {error.strerror}; shipped ones: {known}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: this is no valid TOML: {error}") from error
    except RecursionError:
        raise UserError(f"{path}: its values are nested too deeply for a recipe") from None
    recipe = _TableReader(str(path)).recipe(table)
    return _with_paths(recipe, file.parent)


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package: the phases of the main job, and one for gpt-oss-20b."""
    return sorted(path.name for path in SHIPPED.glob("*.toml"))


def _with_paths(recipe: TrainingRecipe, folder: Path) -> TrainingRecipe:
    """Files that exist beside the recipe are found from anywhere."""

    def found(name: str) -> str:
        return str(folder / name) if (folder / name).exists() else name

    reward, demonstrations = recipe.reward, recipe.demonstrations
    if reward is not None and ":" in reward:
        file, _, name = reward.rpartition(":")
        reward = f"{found(file)}:{name}"
    return replace(
        recipe,
        model=found(recipe.model),
        tasks=None if recipe.tasks is None else found(recipe.tasks),
        probe=None if recipe.probe is None else found(recipe.probe),
        demonstrations=None if demonstrations is None else Path(found(str(demonstrations))),
        reward=reward,
        cascade=_with_model_path(recipe.cascade, found),
    )


def _with_model_path(cascade: CascadeSettings | None, found: Callable[[str], str]) -> CascadeSettings | None:
    if cascade is None or cascade.model is None:
        return cascade
    return replace(cascade, model=Path(found(str(cascade.model))))


class _TableReader:
    """Makes dataclasses of the tables of a file; its errors name the file and the key."""

    def __init__(self, file: str) -> None:
        self.file = file

    def recipe(self, table: Mapping[str, Any]) -> TrainingRecipe:
        algorithms = get_args(Algorithm)
        if "algorithm" not in table:
            raise UserError(f"{self.file}: the key 'algorithm' is missing; give one of {', '.join(algorithms)}")
        algorithm = table["algorithm"]
        if algorithm not in algorithms:
            guess = _guess(str(algorithm), algorithms)
            raise UserError(f"{self.file}: algorithm is {shown(algorithm)}{guess}; give one of {', '.join(algorithms)}")
        own = {key: value for key, value in table.items() if key != "algorithm"}
        settings = self.settings(algorithm, self.table("settings", own.pop("settings", {})))
        return self.built(TrainingRecipe, own, "", None, settings=settings)

    def settings(self, algorithm: Algorithm, table: Mapping[str, Any]) -> TrainerSettings:
        kind = SETTINGS[algorithm]
        for key in table:
            if kind is OnlineSettings and algorithm not in ONLY_OF.get(key, (algorithm,)):
                raise UserError(
                    f"{self.file}: settings.{key} is an option of {' and '.join(ONLY_OF[key])}, not of {algorithm}; "
                    "leave it out"
                )
        fixed = {"algorithm": algorithm} if kind is OnlineSettings else {}
        return self.built(kind, table, "settings.", None, **fixed)

    def built(self, kind: type[T], table: Mapping[str, Any], path: str, base: T | None = None, **fixed: Any) -> T:
        """The dataclass of a table.

        Args:
            path: of the table's keys, such as `settings.sft.`.
            base: has the values of keys that are left out. Default: None: the defaults of the class.
            fixed: fields that no key gives.
        """
        algorithm = fixed.get("algorithm")
        own = {name: each for name, each in key_fields(kind, algorithm).items() if name not in fixed}
        hints = get_type_hints(kind, include_extras=True)
        values = dict(fixed)
        for key, value in table.items():
            if key not in own:
                raise UserError(f"{self.file}: {self.unknown(key, list(own), path)}")
            values[key] = self.value(own[key], without_none(hints[key]), value, f"{path}{key}", base)
        try:
            return kind(**values) if base is None else replace(base, **values)  # type: ignore[type-var]
        except UserError as error:
            raise UserError(f"{self.file}: {_at_key(str(error), kind, path)}") from error

    def value(self, each: Any, hint: Any, value: Any, place: str, base: object) -> Any:
        if is_dataclass(hint):
            inner = getattr(base, each.name) if base is not None else default_of(each)
            return self.built(hint, self.table(place, value), f"{place}.", inner)  # type: ignore[arg-type]
        if hint is Path:
            return Path(self.value(each, _Text, value, place, base))
        if get_origin(hint) is Literal and value not in get_args(hint) and isinstance(value, str):
            guess = _guess(value, get_args(hint))
            raise UserError(f"{self.file}: {place} is {value!r}{guess}; give one of {', '.join(get_args(hint))}")
        try:
            entry = converted({each.name: value}, msgspec.defstruct("Entry", [(each.name, hint)]), "")
        except UserError as error:
            raise UserError(f"{self.file}: {place} {str(error).removeprefix(f': {each.name!r} ')}") from error
        return getattr(entry, each.name)

    def table(self, place: str, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise UserError(f"{self.file}: {place} is {shown(value)}, but it is a table; give [{place}] and its keys")
        return value

    def unknown(self, key: str, known: list[str], path: str) -> str:
        known = sorted([*known, *([] if path else ["algorithm", "settings"])])
        guess = _guess(key, known)
        tables = [place.rpartition(".")[0] for place in key_paths() if place.endswith(f".{key}")]
        if not guess and tables:
            guess = f", which belongs into [{tables[0]}]"
        where = f" in [{path[:-1]}]" if path else ""
        return f"unknown key {shown(key)}{where}{guess}; known keys: {', '.join(known)}"


def _guess(text: str, known: Sequence[str]) -> str:
    close = get_close_matches(text, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _at_key(message: str, kind: type, path: str) -> str:
    """The message of a class as one about the file: of "SFTSettings: frozen is 2" makes "settings.frozen is 2"."""
    text = message.removeprefix(f"{kind.__name__}: ")
    is_about_a_key = any(text.startswith(f"{name} ") for name in key_fields(kind))
    return f"{path}{text}" if is_about_a_key else f"[{path[:-1]}] {text}" if path else text


def key_fields(kind: Any, algorithm: OnlineAlgorithm | None = None) -> dict[str, Any]:
    """Name -> the field of a dataclass that a recipe can give, of `OnlineSettings` those that the algorithm has."""
    return {
        each.name: each
        for each in fields(kind)
        if algorithm is None or kind is not OnlineSettings or algorithm in ONLY_OF.get(each.name, (algorithm,))
    }


def default_of(each: Any) -> Any:
    """Of a field; None if it has none."""
    if each.default is not MISSING:
        return each.default
    return None if each.default_factory is MISSING else each.default_factory()


def without_none(hint: Any) -> Any:
    """The type of a key: TOML has no null, so a key that is left out stands for None."""
    if get_origin(hint) in (Union, UnionType):
        kinds = [each for each in get_args(hint) if each is not type(None)]
        return kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007 (made at run time)
    return hint


def key_paths() -> Iterator[str]:
    """Every key of a recipe, with the tables before it."""
    yield "algorithm"
    for kind in dict.fromkeys(SETTINGS.values()):
        yield from _paths(kind, "settings.", skip=("algorithm",))
    yield from _paths(TrainingRecipe, "", skip=("settings",))


def _paths(kind: type, path: str, skip: tuple[str, ...] = ()) -> Iterator[str]:
    hints = get_type_hints(kind, include_extras=True)
    for name in key_fields(kind):
        if name in skip:
            continue
        hint = without_none(hints[name])
        if is_dataclass(hint):
            yield from _paths(hint, f"{path}{name}.")  # type: ignore[arg-type]
        else:
            yield f"{path}{name}"
