"""Dialogues sampled together, with kept caches, are what re-encoding the whole history before each token gives."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch

from regrade.policy_training.policies.dialogues import run_dialogues
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.sampling_times import SamplingTimes
from regrade.policy_training.policies.transcripts import TokenizedEpisode
from tests.policy_training.conftest import sample

STOPS = range(1, 60)
"""So many that actions have different lengths."""


def some_tokens(count: int, seed: object) -> list[int]:
    return [random.Random(f"{seed}-{place}").randrange(60, 300) for place in range(count)]


@dataclass
class Scripted:
    """A dialogue whose replies are drawn from its seed, of lengths from 0 to 9."""

    prompt: Sequence[int]
    seed: int
    turns: int
    temperature: float = 0.0
    delay: Callable[[], float] = lambda: 0.0
    asked: list[list[int]] = field(default_factory=list)

    def reply(self, tokens: list[int]) -> list[int] | None:
        time.sleep(self.delay())
        self.asked.append(tokens)
        if len(self.asked) == self.turns:
            return None
        return some_tokens((3 * self.seed + 5 * len(self.asked)) % 10, (self.seed, len(self.asked)))


def scripted(**options: object) -> list[Scripted]:
    """Nine dialogues over four prompts; some are over at once."""
    lengths = [7, 7, 3, 19, 7, 3, 1, 19, 7]
    return [
        Scripted(some_tokens(length, length), number, turns=1 + number % 4, **options)  # type: ignore[arg-type]
        for number, length in enumerate(lengths)
    ]


def run(language_model: LanguageModel, dialogues: Sequence[Scripted], **options: object) -> list[TokenizedEpisode]:
    settings = {"stop_ids": STOPS, "max_action_tokens": 8, "max_tokens": 90, "seed": 3, **options}
    found = dict(run_dialogues(language_model.model, dialogues, **settings))  # type: ignore[arg-type]
    assert sorted(found) == list(range(len(dialogues)))
    return [found[index] for index in range(len(dialogues))]


def check_by_encoding_anew(language_model: LanguageModel, dialogue: Scripted, episode: TokenizedEpisode) -> None:
    """Greedy tokens and all log-probabilities, by one forward pass over the whole sequence."""
    ids = torch.tensor([[*episode.prompt, *episode.tokens]])
    with torch.no_grad():
        logits = language_model.model(ids).logits[0, len(episode.prompt) - 1 : -1]
    log_probs = (logits / (dialogue.temperature or 1.0)).log_softmax(-1)
    for place, (token, is_action) in enumerate(zip(episode.tokens, episode.is_action, strict=True)):
        if not is_action:
            assert episode.log_probs[place] == 0.0
            continue
        assert episode.log_probs[place] == pytest.approx(float(log_probs[place, token]), abs=1e-4)
        if dialogue.temperature == 0:
            assert token == int(logits[place].argmax())


def actions(episode: TokenizedEpisode) -> list[int]:
    return [token for token, is_action in zip(episode.tokens, episode.is_action, strict=True) if is_action]


@pytest.mark.parametrize("rows", [1, 2, 3, 96])
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_a_dialogue_is_what_its_whole_text_gives(language_model: LanguageModel, rows: int, temperature: float) -> None:
    dialogues = scripted(temperature=temperature)
    for dialogue, episode in zip(dialogues, run(language_model, dialogues, rows=rows), strict=True):
        check_by_encoding_anew(language_model, dialogue, episode)
        assert episode.prompt == tuple(dialogue.prompt)
        assert len(dialogue.asked) == dialogue.turns
        assert [token for action in dialogue.asked for token in action] == actions(episode)
        assert all(len(action) == 8 or action[-1] in STOPS for action in dialogue.asked)
        assert not any(token in STOPS for action in dialogue.asked for token in action[:-1])
        shown = len(episode.tokens) - len(actions(episode))
        assert shown == sum((3 * dialogue.seed + 5 * turn) % 10 for turn in range(1, dialogue.turns))
    assert len({len(action) for dialogue in dialogues for action in dialogue.asked}) > 3


def test_rows_and_slow_replies_change_no_token(language_model: LanguageModel) -> None:
    expected = [episode.tokens for episode in run(language_model, scripted(temperature=1.0))]
    for number, rows in enumerate([2, 5, 96]):
        draw = random.Random(number)
        late = scripted(temperature=1.0, delay=lambda draw=draw: draw.choice([0.0, 0.002, 0.01]))
        assert [episode.tokens for episode in run(language_model, late, rows=rows)] == expected
    assert [episode.tokens for episode in run(language_model, scripted(temperature=1.0), seed=4)] != expected


def test_one_turn_is_a_completion(language_model: LanguageModel) -> None:
    prompts, heat = [some_tokens(length, length) for length in (5, 12, 5)], [0.0, 0.9, 1.4]
    together = sample(language_model.model, prompts, heat, stop_ids=STOPS, max_tokens=8, seed=3)
    dialogues = [Scripted(prompt, 0, 1, temperature) for prompt in prompts for temperature in heat]
    for rows in (2, 96):
        episodes = run(language_model, dialogues, rows=rows, group=3)
        assert [list(episode.tokens) for episode in episodes] == [tokens for answers in together for tokens in answers]
        dialogues = [Scripted(each.prompt, 0, 1, each.temperature) for each in dialogues]
    assert together[0] != together[2]


def test_equal_dialogues_at_a_temperature_differ_in_every_turn(language_model: LanguageModel) -> None:
    first, second = run(language_model, [Scripted(some_tokens(5, 0), 7, 3, 2.0) for _ in range(2)], stop_ids=[1])
    turns = [[actions(each)[start : start + 8] for start in (0, 8, 16)] for each in (first, second)]
    assert all(one != other for one, other in zip(*turns, strict=True))


def test_a_dialogue_without_room_for_another_action_is_over(language_model: LanguageModel) -> None:
    for most in (8, 20, 33, 34, 64):
        dialogue = Scripted(some_tokens(4, 4), 2, turns=50, temperature=1.0)
        (episode,) = run(language_model, [dialogue], max_tokens=most, stop_ids=[1])
        check_by_encoding_anew(language_model, dialogue, episode)
        turn = len(dialogue.asked)
        assert len(episode.tokens) <= most < len(episode.tokens) + (6 + 5 * turn) % 10 + 8
        assert episode.is_action[-1]
    with pytest.raises(ValueError, match="max_tokens is 7"):
        run(language_model, [dialogue], max_tokens=7)


@pytest.mark.parametrize("rows", [1, 4])
def test_an_error_of_a_reply_surfaces_and_leaves_no_thread(language_model: LanguageModel, rows: int) -> None:
    class Failing(Scripted):
        def reply(self, tokens: list[int]) -> list[int] | None:
            if len(self.asked) == 1:
                raise RuntimeError("the sandbox is gone")
            return super().reply(tokens)

    before = threading.active_count()
    dialogues = [*scripted(delay=lambda: 0.01), Failing(some_tokens(30, 30), 1, 3)]
    with pytest.raises(RuntimeError, match="the sandbox is gone"):
        run(language_model, dialogues, rows=rows)
    assert threading.active_count() == before


def test_an_abandoned_run_leaves_no_thread(language_model: LanguageModel) -> None:
    before = threading.active_count()
    running = run_dialogues(
        language_model.model, scripted(), stop_ids=STOPS, max_action_tokens=8, max_tokens=90, seed=0, rows=3
    )
    next(running)
    assert threading.active_count() > before
    running.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_no_dialogues(language_model: LanguageModel) -> None:
    assert run(language_model, []) == []


def test_replies_are_computed_while_the_others_are_generated(language_model: LanguageModel) -> None:
    """Eight dialogues with replies of 50 ms, one at a time and all together; waiting is counted in both."""
    seconds = {}
    for rows in (1, 8):
        times = SamplingTimes()
        dialogues = [Scripted(some_tokens(5, 5), number, 3, 1.0, delay=lambda: 0.05) for number in range(8)]
        episodes = run(language_model, dialogues, rows=rows, times=times)
        seconds[rows] = times.seconds
        assert times.replies == 24
        assert times.reply_seconds >= 24 * 0.05
        assert times.action_tokens == sum(len(actions(episode)) for episode in episodes)
        assert times.shown_tokens == sum(len(each.tokens) for each in episodes) - times.action_tokens
        assert 0 < times.waited_share < 1
    assert seconds[8] < seconds[1] / 2
