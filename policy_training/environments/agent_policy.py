"""A local language model as an agent: a policy whose attempts are episodes in the compact grammar, or, of a GPT-OSS
model, with tool calls in harmony.

Many episodes advance together (`policies/dialogues.py`): while the tests of some run, the others are generated. With
one turn, the rollouts of the compact grammar are those of `ModelPolicy`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Sampling
from regrade.datasets.tasks import Task
from regrade.evaluators.evaluation.rollout_scoring import EvidenceSource
from regrade.policy_training.environments.agent_tools import FORMAT_FILE, EpisodeLimits, RepositoryEnvironment
from regrade.policy_training.environments.compact_episode import CompactEpisode
from regrade.policy_training.environments.harmony_actions import HarmonyEpisode, harmony_prompt
from regrade.policy_training.policies.harmony import Harmony
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.sampling_times import SamplingTimes
from regrade.policy_training.policies.single_turn_prompt import MAX_ANSWER_TOKENS, prompt_of
from regrade.policy_training.policies.threads import on_free_cores
from regrade.policy_training.policies.transcripts import TokenizedEpisode, framed

EPISODES_AT_A_TIME = 96
TOKENS_OF_A_TURN, SHOWN_TOKENS = 100, 60
"""For which an episode has room by default: each turn; and what is shown between two actions, where longer ones are
allowed than one line. An action of one line has some 15, and what it shows at most some 150."""


@dataclass(frozen=True)
class AgentFormat:
    """How a policy works as an agent; a checkpoint keeps it, so that it is evaluated as it was trained.

    Raises:
        UserError: an episode has no room for one action.
    """

    limits: EpisodeLimits = field(default_factory=lambda: EpisodeLimits(turns=1))
    """Of an episode. Default: one turn, as a policy that answers once."""
    max_action_tokens: int = MAX_ANSWER_TOKENS
    """Of an action. Default: 40."""
    max_tokens: int = 0
    """Of an episode after its prompt, actions and observations together. Default: 0: 100 for each turn, or, if these
    are more, those of its actions and 60 between two."""

    def __post_init__(self) -> None:
        if self.max_tokens == 0:
            turns = self.limits.turns
            of_long_actions = turns * self.max_action_tokens + (turns - 1) * SHOWN_TOKENS
            object.__setattr__(self, "max_tokens", max(TOKENS_OF_A_TURN * turns, of_long_actions))
        if not 1 <= self.max_action_tokens <= self.max_tokens:
            raise UserError(
                f"AgentFormat: max_action_tokens is {self.max_action_tokens!r} and max_tokens {self.max_tokens!r}; "
                "give an action at least 1 token, and an episode room for one action"
            )

    def files(self) -> dict[str, str]:
        """What `LanguageModel.save` writes beside the weights: name -> text."""
        return {FORMAT_FILE: msgspec.json.format(msgspec.json.encode(self)).decode() + "\n"}

    @classmethod
    def of_checkpoint(cls, folder: Path) -> AgentFormat:
        """The format of a saved policy; one turn if it has none.

        Raises:
            UserError: the file is damaged.
        """
        path = folder / FORMAT_FILE
        if not path.is_file():
            return cls()
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (msgspec.MsgspecError, UserError) as error:
            raise UserError(f"{path} is no format of an agent: {error}; save the checkpoint again") from error


class AgentSample(NamedTuple):
    """One attempt of an agent, and its tokens to learn from."""

    rollout: Rollout
    tokens: TokenizedEpisode


@dataclass
class AgentPolicy:
    """A language model that reads, edits and tests in several turns."""

    language_model: LanguageModel
    scorer: EvidenceSource
    name: str
    format: AgentFormat = field(default_factory=AgentFormat)
    progress: Callable[[int, int], None] | None = None
    """Called with the numbers of tasks done and of all."""
    rows: int = EPISODES_AT_A_TIME
    """Episodes at a time."""
    times: SamplingTimes = field(default_factory=SamplingTimes)
    """Of all that it has sampled."""

    def propose(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[Rollout]:
        """An episode per sample, in the order in which they end."""
        return (sampled.rollout for sampled in self.sample(tasks, samplings, seed))

    def sample(self, tasks: Sequence[Task], samplings: Sequence[Sampling], seed: int) -> Iterator[AgentSample]:
        """As `propose`, with the tokens of each episode and their log-probabilities."""
        from regrade.policy_training.policies.dialogues import run_dialogues
        from regrade.policy_training.policies.precision import sampler_of

        numbered = [(s.temperature, sample) for s in samplings for sample in range(s.samples)]
        dialogues = [
            dialogue
            for task in tasks
            for dialogue in dialogues_of(self, task.without_reference(), [heat for heat, _ in numbered])
        ]
        ended: Counter[int] = Counter()
        began = time.perf_counter()
        with sampler_of(self.language_model.model) as model, on_free_cores():
            for index, tokens in run_dialogues(
                model,
                dialogues,
                stop_ids=self.language_model.stop_ids,
                max_action_tokens=self.format.max_action_tokens,
                max_tokens=self.format.max_tokens,
                seed=seed,
                rows=self.rows,
                group=len(numbered),
                times=self.times,
            ):
                place, number = divmod(index, len(numbered))
                rollout = dialogues[index].rollout(self.name, numbered[number][1], seed, time.perf_counter() - began)
                yield AgentSample(rollout, tokens)
                ended[place] += 1
                if self.progress is not None and ended[place] == len(numbered):
                    self.progress(sum(count == len(numbered) for count in ended.values()), len(tasks))
                began = time.perf_counter()  # the time that the caller spends is not generation


def dialogues_of(policy: AgentPolicy, task: Task, temperatures: Sequence[float]) -> list[AgentDialogue]:
    """The attempts at one task."""
    limits = policy.format.limits
    if limits.turns == 1:
        limits = replace(limits, test_runs=0)  # nothing could follow from it
    environment = RepositoryEnvironment({task.id: task}, policy.scorer, limits)
    harmony, kind = Harmony.of(policy.language_model.tokenizer), AgentDialogue
    if harmony is None:
        text = CompactEpisode(environment, task.id).prompt
        prompt = policy.language_model.encode(text)
    else:
        text, kind = environment.reset(task.id), HarmonyDialogue
        prompt = harmony_prompt(harmony, text)
    lock = threading.Lock()
    return [
        kind(policy.language_model, policy.format, task, policy.scorer, limits, text, prompt, heat, lock)
        for heat in temperatures
    ]


@dataclass
class AgentDialogue:
    """One episode as a dialogue in tokens."""

    language_model: LanguageModel
    format: AgentFormat
    task: Task
    scorer: EvidenceSource
    limits: EpisodeLimits
    text: str
    """The prompt."""
    prompt: list[int]
    temperature: float
    tokenizer_lock: threading.Lock
    """Tokenizers of transformers are not meant for several threads."""
    episode: CompactEpisode | HarmonyEpisode | None = None
    used: int = 0
    """Tokens after the prompt."""

    def _begin(self, environment: RepositoryEnvironment) -> CompactEpisode | HarmonyEpisode:
        return CompactEpisode(environment, self.task.id)

    def _act(self, tokens: list[int]) -> list[int] | None:
        """The tokens that follow an action; None: the episode is over."""
        assert isinstance(self.episode, CompactEpisode)
        with self.tokenizer_lock:
            line = self.language_model.decode(tokens)
        observation = self.episode.act(line)
        if observation is None:
            return None
        with self.tokenizer_lock:
            return self.language_model.encode(framed(observation))

    def reply(self, tokens: list[int]) -> list[int] | None:
        if self.episode is None:  # only now: its time is limited, and it may have waited for its turn
            self.episode = self._begin(RepositoryEnvironment({self.task.id: self.task}, self.scorer, self.limits))
        session = self.episode.environment.session
        shown = self._act(tokens)
        session.tokens += len(tokens)  # an action that uses up the budget is executed
        self.used += len(tokens)
        if shown is None or session.is_over():
            return None
        self.used += len(shown)
        if self.used + self.format.max_action_tokens > self.format.max_tokens:
            session.end = EpisodeEnd.TOKENS
            return None
        return shown

    def rollout(self, policy: str, sample: int, seed: int, seconds: float) -> Rollout:
        """The attempt, when it is over."""
        assert self.episode is not None
        episode = self.episode.episode()
        completion = self.episode.transcript().completion
        if self.limits.turns == 1 and self.task.target is not None and isinstance(self.episode, CompactEpisode):
            patch = prompt_of(self.task).patch(completion)
            is_well_formed = patch is not None
        else:
            patch, is_well_formed = episode.patch, any(step.tool for step in episode.steps)
        return Rollout(
            task_id=self.task.id,
            policy=policy,
            temperature=self.temperature,
            sample=sample,
            seed=seed,
            patch=patch or Patch(""),
            prompt=self.text,
            completion=completion,
            well_formed=is_well_formed,
            tokens=episode.tokens,
            seconds=seconds,
            lost=self.episode.environment.session.lost,
            episode=episode,
        )


class HarmonyDialogue(AgentDialogue):
    """The episode of a GPT-OSS model. Its `text` is the instruction; the prompt also describes the tools."""

    def _begin(self, environment: RepositoryEnvironment) -> HarmonyEpisode:
        environment.reset(self.task.id)
        return HarmonyEpisode(environment, Harmony(self.language_model.tokenizer))

    def _act(self, tokens: list[int]) -> list[int] | None:
        assert isinstance(self.episode, HarmonyEpisode)
        return self.episode.act(tokens, self.tokenizer_lock)
