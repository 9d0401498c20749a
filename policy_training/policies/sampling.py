"""Sample completions with one forward pass per prompt and no idle rows in the batch.

A group of G completions shares one prompt. Its keys and values are computed once and *not* copied per completion: each
decoding step attends to them as one group of G x heads queries, and to a small private cache of the row's own tokens.
Answers have different lengths, so rows leave as they end, and further prompts enter as soon as slots are free
(continuous batching, Orca, Yu et al. 2022). A row may also go on after its answer: the tokens that it is shown then are
appended to its private cache in the pass of the next decoding step (`dialogues.py`).

A completion depends on the weights, the seed, its prompt and its index in the group, not on the other rows of the
batch: each row has its own random numbers (up to rounding, which differs with the size of a batch).

Works for decoder-only models of transformers that use its attention interface and rotary or absolute position ids, also
with attention sinks and sliding windows (GPT-OSS), of which the caches keep all tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from regrade.policy_training.policies.row_batch import Completion, PromptGroup, RandomNumbers, RowBatch

ROWS = 96
"""Default number of completions decoded at a time. On a CPU, more take proportionally longer, and fewer waste the
reading of weights."""


def stream(
    model: Any,
    prompts: Sequence[Sequence[int]],
    temperatures: Sequence[float],
    *,
    stop_ids: Sequence[int],
    max_tokens: int,
    seed: int,
    rows: int = ROWS,
) -> Iterator[tuple[int, list[Completion]]]:
    """Sample one completion per prompt and entry of `temperatures`; yield each prompt's as soon as all have ended.

    Args:
        prompts: token ids, one list per prompt.
        temperatures: one per completion of a prompt (0: greedy), so that a whole sweep shares one pass over it.
        stop_ids: tokens that end a completion (kept as its last token).
        max_tokens: where a completion ends otherwise.
        seed: of the random numbers; see the module for what else a completion depends on.
        rows: completions decoded at a time; at least one prompt's are.

    Yields:
        (index in `prompts`, its completions). The longest prompts come first.
    """
    count = len(temperatures)
    seen: Counter[tuple[int, ...]] = Counter()
    groups = []
    for index, prompt in enumerate(prompts):
        numbers = RandomNumbers.of(prompt, seed, seen[tuple(prompt)], max_tokens)
        seen[tuple(prompt)] += 1
        members = [(index, number) for number in range(count)]
        groups.append(PromptGroup(prompt, members, temperatures, numbers.of_first_actions(count)))
    batch = RowBatch.of(model, groups, rows, stop_ids=stop_ids, max_action_tokens=max_tokens)
    done: dict[int, dict[int, Completion]] = {}
    while batch.advance():
        for row in batch.take_ended():
            index, number = batch.members[row]
            answers = done.setdefault(index, {})
            answers[number] = batch.actions[row]
            batch.release(row)
            if len(answers) == count:
                del done[index]
                yield index, [answers[number] for number in range(count)]
