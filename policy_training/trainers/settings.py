"""The settings of the trainers, one frozen dataclass each. Constructing one with a value out of range raises UserError.

What a trainer needs besides is how long it trains (`Budget`), its seed, and where it writes and logs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Sampling

Algorithm = Literal["sft", "expert-iteration", "grpo", "rloo", "reinforce", "ppo", "reward-model"]
OnlineAlgorithm = Literal["grpo", "rloo", "reinforce"]
Credit = Literal["trajectory", "step"]
Generation = Literal["shared", "trl", "vllm"]
VLLMMode = Literal["colocate", "server"]
LossType = Literal["dapo", "grpo", "dr_grpo", "bnpo", "cispo"]
RatioLevel = Literal["token", "sequence"]
RewardScale = Literal["none", "group", "batch"]
AdvantageBaseline = Literal["none", "batch"]
LessonKind = Literal["episodes", "traces"]
RewardObjective = Literal["components", "preferences"]


class _ValidRange(NamedTuple):
    contains: Callable[[Any], bool]
    words: str


_POSITIVE = _ValidRange(lambda value: 0 < value < math.inf, "a finite number above 0")
_NOT_NEGATIVE = _ValidRange(lambda value: 0 <= value < math.inf, "a finite number of at least 0")
_SHARE = _ValidRange(lambda value: 0 <= value <= 1, "a share between 0 and 1")
_COUNT = _ValidRange(lambda value: isinstance(value, int) and 1 <= value <= 10**6, "a whole number from 1 to 1000000")
_GROUP = _ValidRange(lambda value: isinstance(value, int) and value >= 2, "a whole number of at least 2")
_OPTIONAL_COUNT = _ValidRange(lambda value: value is None or _COUNT.contains(value), f"{_COUNT.words}, or None")
_OPTIONAL_POSITIVE = _ValidRange(
    lambda value: value is None or _POSITIVE.contains(value), f"{_POSITIVE.words}, or None"
)
_OPTIONAL_SHARE = _ValidRange(lambda value: value is None or _SHARE.contains(value), f"{_SHARE.words}, or None")
_OPTIONAL_FINITE = _ValidRange(lambda value: value is None or math.isfinite(value), "a finite number, or None")
_OPTIONAL_FACTOR = _ValidRange(lambda value: value is None or 1 < value < math.inf, "a number above 1, or None")
_FACTOR = _ValidRange(lambda value: 1 <= value < math.inf, "a finite number of at least 1")
_LOWERING = _ValidRange(lambda value: 0 < value <= 1, "a number above 0 and at most 1")
_NUMBER = _ValidRange(lambda value: isinstance(value, int) and value >= 0, "a whole number of at least 0")
_SAMPLING = _ValidRange(
    lambda value: _NOT_NEGATIVE.contains(value.temperature) and _COUNT.contains(value.samples),
    "a temperature of at least 0 and at least 1 sample",
)
_BELOW_1 = _ValidRange(lambda value: 0 < value < 1, "a number above 0 and below 1")
_OPTIONAL_POSITIVE = _ValidRange(
    lambda value: value is None or _POSITIVE.contains(value), f"{_POSITIVE.words}, or None"
)
_URL = _ValidRange(
    lambda value: value.startswith(("http://", "https://")), "an address that begins with http:// or https://"
)
_FLAG = _ValidRange(lambda value: isinstance(value, bool), "True or False")


def _one_of(choices: Any) -> _ValidRange:
    names = get_args(choices)
    return _ValidRange(lambda value: value in names, " or ".join(names))


def _check(settings: object, **ranges: _ValidRange) -> None:
    for name, allowed in ranges.items():
        value = getattr(settings, name)
        try:
            is_valid = allowed.contains(value)
        except (TypeError, AttributeError):  # a value of another type
            is_valid = False
        if not is_valid:
            raise UserError(f"{type(settings).__name__}: {name} is {value!r}; give {allowed.words}")


@dataclass(frozen=True, kw_only=True)
class SFTSettings:
    """Supervised fine-tuning."""

    algorithm: ClassVar[Algorithm] = "sft"
    learning_rate: float = 1e-4
    """Peak learning rate, after the warm-up; > 0. Default: 1e-4."""
    batch_size: int = 8
    """Examples per optimizer step; >= 1. Default: 8."""
    frozen: float = 0.0
    """Share of the layers, from the bottom, that keep their weights, in [0, 1]. Default: 0."""

    def __post_init__(self) -> None:
        _check(self, learning_rate=_POSITIVE, batch_size=_COUNT, frozen=_SHARE)


@dataclass(frozen=True, kw_only=True)
class ExpertIterationSettings:
    """Expert iteration."""

    algorithm: ClassVar[Algorithm] = "expert-iteration"
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.8, samples=8))
    """Temperature (>= 0), and attempts per task and round (>= 1). Default: 0.8, and 8 attempts."""
    answers_per_task: int = 2
    """Distinct verified answers per task that a round adds, so that easy tasks do not dominate; >= 1. Default: 2."""
    lessons: LessonKind = "episodes"
    """What an agent learns from a round. `episodes`: it works over several turns, and learns its verified episodes
    without their mistakes. `traces`: it answers once, which costs a fraction of an episode, and learns executed traces
    to the best fix of each task, which also test and take back its own failed answers. Default: `episodes`."""
    replay: float = 1.0
    """Demonstrations, drawn anew each round, per verified answer; >= 0. Default: 1: enough that the policy does not
    forget them, and few enough that a short round still learns something new."""
    sft: SFTSettings = SFTSettings(learning_rate=5e-5)
    """Of the training that ends each round. Default: SFT's, at a learning rate of 5e-5."""

    def __post_init__(self) -> None:
        _check(self, sampling=_SAMPLING, answers_per_task=_COUNT, lessons=_one_of(LessonKind), replay=_NOT_NEGATIVE)


@dataclass(frozen=True, kw_only=True)
class VLLMSettings:
    """Where vLLM generates, for `generation = "vllm"`; all else is TRL's default."""

    mode: VLLMMode = "colocate"
    """`colocate`: in the processes that train, on their GPUs; `server`: a server on other GPUs, started by
    `trl vllm-serve`. Default: `colocate`."""
    server_base_url: str = "http://localhost:8000"
    """Of the server. Default: `http://localhost:8000`."""
    gpu_memory_utilization: float = 0.3
    """Share of a GPU's memory for a colocated vLLM, above 0 and at most 1. Default: 0.3."""
    tensor_parallel_size: int = 1
    """GPUs that share a colocated model; >= 1. Default: 1."""
    enable_sleep_mode: bool = False
    """Does a colocated vLLM free its memory while weights are updated? Default: False."""

    def __post_init__(self) -> None:
        _check(
            self,
            mode=_one_of(VLLMMode),
            server_base_url=_URL,
            gpu_memory_utilization=_LOWERING,
            tensor_parallel_size=_COUNT,
            enable_sleep_mode=_FLAG,
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """Of TRL's configurations."""
        names = ["mode"]
        names += ["server_base_url"] if self.mode == "server" else [each.name for each in fields(self)[2:]]
        return {f"vllm_{name}": getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class OnlineSettings:
    """GRPO, RLOO and REINFORCE; what an option does in the loss is TRL's. An option of another algorithm is refused."""

    algorithm: OnlineAlgorithm
    """`grpo`, `rloo` or `reinforce`; no default."""
    learning_rate: float = 2e-5
    """Peak learning rate, after the warm-up; > 0. Default: 2e-5."""
    prompts_per_step: int = 8
    """Tasks per optimizer step; >= 1. With fewer tasks, all of them. Default: 8."""
    samples_per_prompt: int = 8
    """Attempts per task: the size of a group; >= 2. Default: 8."""
    steps_per_generation: int = 1
    """Optimizer steps that share one generation, `prompts_per_step` tasks each; >= 1. Sampling and execution use the
    machine better in large batches; the ratio to the sampling policy is clipped. Default: 1."""
    num_iterations: int = 1
    """Optimizer steps on each attempt; >= 1. From the second one on, the ratio to the sampling policy is clipped.
    Default: 1."""
    temperature: float = 1.0
    """Of sampling; > 0. Default: 1."""
    frozen: float = 0.0
    """Share of the layers, from the bottom, that keep their weights, in [0, 1]. Default: 0."""
    loss_type: LossType = "dapo"
    """How the loss adds up tokens: `dapo`, over all tokens of a step; `grpo`, a mean over each attempt's tokens first;
    `dr_grpo`, over a constant, the longest answer; `bnpo`, over the tokens of a pass; `cispo`, as `dapo`, where the
    clipped ratio weighs the gradient, so that no token loses it. Default: `dapo`."""
    importance_sampling_level: RatioLevel = "token"
    """Whose ratio to the sampling policy is clipped: `token`, or `sequence`, the mean over an attempt's tokens (GSPO).
    Default: `token`."""
    epsilon: float = 0.2
    """The ratio is clipped from below at 1 - epsilon, above 0 and below 1. Default: 0.2."""
    epsilon_high: float | None = None
    """The ratio is clipped from above at 1 + epsilon_high; > 0. With `cispo`, it is the largest ratio itself, at least
    1, and has no default. Default: None: that of `epsilon`."""
    scale_rewards: RewardScale = "none"
    """What an advantage is divided by: `none`; `group`, its group's standard deviation; `batch`, that of the batch.
    Default: `none`."""
    normalize_advantages: bool = False
    """Shift and scale the advantages of a batch to mean 0 and standard deviation 1? Default: False."""
    baseline: AdvantageBaseline = "none"
    """What is taken from the reward: `none`, plain REINFORCE; `batch`, the mean of the batch. Default: `none`."""
    mask_truncated_completions: bool = False
    """Does an answer that its limit of tokens cut off (of an agent: whose last action was cut off) teach nothing?
    Default: False."""
    beta: float = 0.0
    """Weight of the KL divergence from the initial policy, in the loss, in RLOO in the reward; >= 0. 0: no reference
    model. Default: 0."""
    credit: Credit = "trajectory"
    """What an advantage belongs to: `trajectory`, all actions of an attempt; or `step` (grpo), each action by what came
    after it. Default: `trajectory`."""
    generation: Generation = "shared"
    """The engine. `shared`: Regrade's sampler and passes, which run each prompt once, in one process; `trl`: TRL's own
    generation and passes, also in several processes; `vllm`: those with vLLM, which needs a GPU. Default: `shared`."""
    vllm: VLLMSettings | None = None
    """Where vLLM generates, for `generation` `vllm`. Default: None: in the processes that train."""
    prompts_per_pass: int | None = None
    """Tasks whose attempts are learned from in one pass; the gradients of a step's passes add up. Fewer need less
    memory, 1.5 MB per token in a model of 135 million weights. Default: None: all of a step, and for agents so many
    that a pass has 8 attempts."""

    def __post_init__(self) -> None:
        if self.algorithm == "rloo" and self.credit == "step":
            raise UserError("OnlineSettings: credit is 'step', but rloo compares whole trajectories; train by grpo")
        if self.vllm is not None and self.generation != "vllm":
            raise UserError(
                f"OnlineSettings: vllm is given, and generation is {self.generation!r}; set it to 'vllm', or leave "
                "vllm out"
            )
        if self.credit == "step" and self.generation != "shared":
            raise UserError("OnlineSettings: credit is 'step', which TRL's own trainers do not know; use 'shared'")
        _check(
            self,
            algorithm=_one_of(OnlineAlgorithm),
            credit=_one_of(Credit),
            generation=_one_of(Generation),
            prompts_per_pass=_OPTIONAL_COUNT,
            learning_rate=_POSITIVE,
            prompts_per_step=_COUNT,
            samples_per_prompt=_GROUP,
            steps_per_generation=_COUNT,
            num_iterations=_COUNT,
            temperature=_POSITIVE,
            frozen=_SHARE,
            loss_type=_one_of(LossType),
            importance_sampling_level=_one_of(RatioLevel),
            epsilon=_BELOW_1,
            epsilon_high=_OPTIONAL_POSITIVE,
            scale_rewards=_one_of(RewardScale),
            normalize_advantages=_FLAG,
            baseline=_one_of(AdvantageBaseline),
            mask_truncated_completions=_FLAG,
            beta=_NOT_NEGATIVE,
        )
        for name, algorithms in ONLY_OF.items():
            value = getattr(self, name)
            if self.algorithm not in algorithms and value != _default(OnlineSettings, name):
                raise UserError(
                    f"OnlineSettings: {name} is {value!r}, which {self.algorithm} does not have; leave it out, or "
                    f"train by {' or '.join(algorithms)}"
                )
        if self.credit == "step" and self.scale_rewards != "none":
            raise UserError(
                f"OnlineSettings: scale_rewards is {self.scale_rewards!r}, but rewards of steps (credit 'step') keep "
                "their scale; set it to 'none'"
            )
        if self.loss_type == "cispo" and (self.epsilon_high is None or self.epsilon_high < 1):
            raise UserError(
                f"OnlineSettings: epsilon_high is {self.epsilon_high!r}, and with loss_type 'cispo' it is the largest "
                "ratio itself; give a number of at least 1, such as 5"
            )


ONLY_OF: Mapping[str, tuple[OnlineAlgorithm, ...]] = {
    "loss_type": ("grpo",),
    "importance_sampling_level": ("grpo",),
    "scale_rewards": ("grpo",),
    "credit": ("grpo",),
    "epsilon": ("grpo", "rloo"),
    "epsilon_high": ("grpo", "rloo"),
    "num_iterations": ("grpo", "rloo"),
    "steps_per_generation": ("grpo", "rloo"),
    "generation": ("grpo", "rloo"),
    "vllm": ("grpo", "rloo"),
    "normalize_advantages": ("rloo",),
    "baseline": ("reinforce",),
}
"""Setting of `OnlineSettings` -> the algorithms that have it; all have the others."""


def _default(kind: type, name: str) -> Any:
    return next(each.default for each in fields(kind) if each.name == name)


@dataclass(frozen=True, kw_only=True)
class PPOSettings:
    """PPO."""

    algorithm: ClassVar[Algorithm] = "ppo"
    generation: ClassVar[Generation] = "shared"
    credit: ClassVar[Credit] = "trajectory"
    learning_rate: float = 2e-5
    """Of the policy, after the warm-up; > 0. Default: 2e-5."""
    value_learning_rate: float = 1e-3
    """Of the value head; > 0. Default: 1e-3."""
    kl_coef: float = 0.05
    """Penalty per nat of KL divergence from the initial policy; >= 0. 0: no reference model. Default: 0.05."""
    epochs: int = 4
    """Optimizer steps on each batch of answers; >= 1. Default: 4."""
    prompts_per_step: int = 32
    """Tasks per batch; >= 1. With fewer tasks, all of them. Default: 32."""
    samples_per_prompt: int = 1
    """Attempts per task; >= 1. PPO needs no groups; more than one shares the forward pass of the prompt. Default: 1."""
    normalize_advantages: bool = False
    """Scale the advantages of a batch to standard deviation 1, besides shifting them to mean 0? Default: False: near an
    optimum they are noise, which the scale makes as loud as a signal."""
    temperature: float = 1.0
    """Of sampling; > 0. Default: 1."""
    frozen: float = 0.0
    """Share of the layers, from the bottom, that keep their weights, in [0, 1]. Default: 0."""
    prompts_per_pass: int | None = None
    """Tasks whose attempts are learned from in one pass. Default: None: all of a batch, and for agents so many that a
    pass has 8 attempts."""

    def __post_init__(self) -> None:
        _check(
            self,
            learning_rate=_POSITIVE,
            value_learning_rate=_POSITIVE,
            kl_coef=_NOT_NEGATIVE,
            epochs=_COUNT,
            prompts_per_step=_COUNT,
            samples_per_prompt=_COUNT,
            normalize_advantages=_FLAG,
            temperature=_POSITIVE,
            frozen=_SHARE,
            prompts_per_pass=_OPTIONAL_COUNT,
        )


ATTEMPTS_PER_PASS = 8
"""Default for agents: their trajectories are long."""


def passes_per_step(prompts: int, settings: OnlineSettings | PPOSettings, *, is_agent: bool) -> int:
    """The passes, of equally many tasks, in which a step's `prompts` tasks are learned from."""
    samples, wanted = settings.samples_per_prompt, settings.prompts_per_pass
    if wanted is None:
        wanted = max(1, ATTEMPTS_PER_PASS // samples) if is_agent else prompts
    return next(
        (
            count
            for count in range(1, prompts + 1)
            if prompts % count == 0 and prompts // count <= wanted and prompts // count * samples >= 2
        ),
        1,
    )


@dataclass(frozen=True, kw_only=True)
class RewardModelSettings:
    """The reward model."""

    algorithm: ClassVar[Algorithm] = "reward-model"
    objective: RewardObjective = "components"
    """What the trunk learns before its heads do: `components`: nothing, so the heads of all components are trained on
    its activations, which are computed once; `preferences`: to rank pairs of attempts (Bradley-Terry).
    Default: components."""
    input_tokens: int = 512
    """The longest input: what does not fit is cut, and said; >= 64, and at most the model's context. Default: 512."""
    members: int = 8
    """Of the ensemble, whose disagreement is a part of the doubt; >= 1. Default: 8."""
    learning_rate: float = 5e-5
    """Of the learning layers, after the warm-up, for `preferences`; > 0. Default: 5e-5."""
    head_learning_rate: float = 1e-3
    """Of the new output layer, after the warm-up, for `preferences`; > 0. Default: 1e-3."""
    pairs_per_step: int = 32
    """Pairs of answers per optimizer step, for `preferences`; >= 1. Default: 32."""
    frozen: float = 0.5
    """Share of the layers, from the bottom, that keep their weights, as the embeddings do, for `preferences`; in
    [0, 1]. Default: 0.5."""
    preferences: int | None = None
    """Pairs to train on at most, drawn evenly from the training tasks, for `preferences`; >= 1. Default: None: all."""
    attempts: int | None = None
    """Attempts to learn from and to calibrate on at most, drawn evenly; >= 1. Reading them is most of the time.
    Default: None: all."""
    test_share: float = 0.25
    """Share of the functions whose attempts are held out to calibrate the model, in [0, 1]. Default: 0.25."""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=1.0, samples=8))
    """Temperature (>= 0), and attempts per task (>= 1), of the answers that `regrade train reward-model` executes to
    train on. Default: 1, and 8 attempts."""

    def __post_init__(self) -> None:
        _check(
            self,
            objective=_one_of(RewardObjective),
            input_tokens=_COUNT,
            members=_COUNT,
            learning_rate=_POSITIVE,
            head_learning_rate=_POSITIVE,
            pairs_per_step=_COUNT,
            frozen=_SHARE,
            preferences=_OPTIONAL_COUNT,
            attempts=_OPTIONAL_COUNT,
            test_share=_SHARE,
            sampling=_SAMPLING,
        )


@dataclass(frozen=True, kw_only=True)
class StabilitySettings:
    """The stability guard of every trainer: what raises an alarm, and what follows. A limit of None: no such alarm.

    The defaults are far from what a healthy training shows (`docs/stability.md` has the reasons): an alarm is for
    training that is being lost, not for a noisy step.
    """

    patience: int = 3
    """Steps in a row that must exceed a limit marked with (patience); >= 1. Single groups and batches are noisy.
    Default: 3."""
    max_rollbacks: int = 3
    """Returns to the best weights before training is given up; >= 0. Default: 3: the learning rate is then an eighth,
    and what still diverges has another cause."""
    rate_factor: float = 0.5
    """Factor of the learning rate at each rollback, in (0, 1]. Default: 0.5."""
    kl_factor: float = 2.0
    """Factor of the KL coefficient at each rollback, of trainers that have one (ppo); >= 1. Default: 2."""
    checkpoint_every: int = 10
    """Without a held-out probe: steps between the copies of healthy weights to return to; >= 1. Default: 10."""
    probe_every: int = 20
    """Steps between held-out probes; >= 1. Default: 20: a probe of 32 tasks, 4 attempts each, then costs a tenth of the
    attempts of a training with 64 per step."""
    probe_samples: int = 4
    """Attempts per task of a held-out probe, sampled at temperature 1; >= 1. 1: a greedy one. Default: 4: a greedy
    attempt shows a loss only when the likeliest answer has changed."""
    probe_drop: float = 0.1
    """Alarm if a probe is lower than the best one by more than this, and by more than two standard errors of the paired
    difference; >= 0. The score of a probe is the share of clean fixes less the share of breakage. Default: 0.1."""
    gradient_factor: float | None = 20.0
    """The gradient norm, by the median of the last 50, above which a step is stopped; > 1. Norms under 1, where
    clipping begins, never count. Default: 20: clipping bounds what one step can do, and rare successes are noisy."""
    loss_factor: float | None = 2.0
    """Of SFT: the loss by that of the first steps; > 1 (patience, and by at least half a nat). Default: 2."""
    max_kl: float | None = 0.5
    """Of online training: KL divergence from the initial policy, in nats per token, by which it may exceed the initial
    entropy; > 0. Default: 0.5. A policy that becomes sure of what it said at random before is at its initial entropy;
    beyond it, it says what it never said."""
    kl_every: int = 5
    """Steps between measurements of that KL divergence, where the trainer does not log it anyway; >= 1. Each costs two
    forward passes over at most 32 attempts. Default: 5."""
    max_ratio_drift: float | None = 0.1
    """Mean distance of the ratio from 1 over the tokens, trainer to sampler, at steps whose attempts were sampled with
    the present weights; > 0 (patience). It would be 0 without rounding. Default: 0.1: half of the usual clip range."""
    max_clip_share: float | None = 0.4
    """Share of the tokens whose ratio is clipped, in [0, 1] (patience). Default: 0.4: clipping is for the few tokens
    that have moved far, not for half of them."""
    min_entropy_share: float | None = 0.05
    """The entropy by that of the first steps, in [0, 1] (patience). Counts only while the training reward has not risen
    over its first steps: a policy that has learned is sure of itself, too. Default: 0.05."""
    max_equal_steps: int | None = 10
    """Generations in a row without any difference of rewards in any group, or without any scored attempt; >= 1.
    Training then ends: there is nothing to learn. Attempts of which 95 % are clean fixes are no alarm. Default: 10."""
    max_truncation: float | None = 0.5
    """Share of the attempts that run out of tokens or turns, in [0, 1], if it has doubled since the first steps
    (patience). Default: 0.5."""
    min_explained_variance: float | None = -1.0
    """Of PPO's critic, after its first 5 batches (patience). 0 is a constant critic. Default: -1."""
    max_tampering: float | None = 0.1
    """Share of the attempts that tamper with the evaluation, in [0, 1] (patience). Default: 0.1."""

    def __post_init__(self) -> None:
        _check(
            self,
            patience=_COUNT,
            max_rollbacks=_NUMBER,
            rate_factor=_LOWERING,
            kl_factor=_FACTOR,
            checkpoint_every=_COUNT,
            probe_every=_COUNT,
            probe_samples=_COUNT,
            probe_drop=_NOT_NEGATIVE,
            gradient_factor=_OPTIONAL_FACTOR,
            loss_factor=_OPTIONAL_FACTOR,
            max_kl=_OPTIONAL_POSITIVE,
            kl_every=_COUNT,
            max_ratio_drift=_OPTIONAL_POSITIVE,
            max_clip_share=_OPTIONAL_SHARE,
            min_entropy_share=_OPTIONAL_SHARE,
            max_equal_steps=_OPTIONAL_COUNT,
            max_truncation=_OPTIONAL_SHARE,
            min_explained_variance=_OPTIONAL_FINITE,
            max_tampering=_OPTIONAL_SHARE,
        )


TrainerSettings = SFTSettings | ExpertIterationSettings | OnlineSettings | PPOSettings | RewardModelSettings
