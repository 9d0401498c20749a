"""Datasets for other trainers, made of scored attempts: preference pairs and SFT examples.

    README.md            the dataset's card, with the YAML header that Hugging Face reads
    data/train.jsonl     rows
    data/test.jsonl      rows of other functions, if a share is held out

`datasets.load_dataset(FOLDER)` loads it. The columns `prompt`, `chosen`, `rejected` and `prompt`, `completion` are
those of TRL's trainers (DPO, reward, SFT).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regrade.datasets.errors import UserError
from regrade.datasets.output_folders import check_parts, completed_folder
from regrade.evaluators.storage.labelled_attempts import Component, LabelledAttempt, PatchOrigin
from regrade.policy_training.policies.task_descriptions import MOST_TESTS
from regrade.policy_training.reward_models.preferences import pairs, split_by_cluster

SharedKind = Literal["preferences", "sft"]
PARTS = ("README.md", "data")
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Numbers of rows, and their names at Hugging Face."""
COLUMNS: dict[SharedKind, dict[str, str]] = {
    "preferences": {
        "prompt": "the instruction, the failing tests and the failure of one",
        "chosen": "the patch with the higher executed reward, a unified diff",
        "rejected": "the patch with the lower one",
        "task_id": "id of the task",
        "repository": "its repository",
        "chosen_reward": "the executed reward of the chosen patch",
        "rejected_reward": "that of the rejected one",
        "margin": "their difference, above 0",
        "chosen_policy": "the policy that proposed the chosen patch",
        "rejected_policy": "the policy that proposed the rejected one",
    },
    "sft": {
        "prompt": "the instruction, the failing tests and the failure of one",
        "completion": "a patch that fixes the task and breaks nothing, a unified diff",
        "task_id": "id of the task",
        "repository": "its repository",
        "reward": "the executed reward",
        "policy": "the policy that proposed it",
    },
}
"""Column -> its meaning."""
NO_ROW: dict[SharedKind, str] = {
    "preferences": "no task has two attempts with different rewards",
    "sft": "no attempt is a clean fix",
}


@dataclass(frozen=True)
class SharedDataset:
    """What was written."""

    folder: Path
    rows: dict[str, int]
    """Split -> its number of rows."""


def write_shared_dataset(
    attempts: Sequence[LabelledAttempt],
    folder: Path,
    kind: SharedKind,
    *,
    per_task: int | None = 8,
    held_out: float = 0.0,
    seed: int = 0,
    name: str = "",
) -> SharedDataset:
    """Write attempts as a dataset, in place of an earlier one. The same attempts give the same bytes.

    Args:
        attempts: distinct ones (see `open_attempts`). Scripted cheats are left out.
        per_task: maximum number of pairs a task; None: all.
        held_out: share of the functions whose attempts form the split `test`; 0: no such split.
        seed: of the choices.
        name: of the dataset, for its card; empty: the folder's.

    Raises:
        UserError: the attempts give no row, or the folder holds other things.
        OSError: the disk is full, for example; what was there before is then unchanged.
    """
    check_parts(folder, PARTS, "dataset")
    groups = {"train": list(attempts)}
    if held_out:
        train, test = split_by_cluster(attempts, held_out, seed)
        groups = {"train": train, "test": test}
    rows = {split: _rows(members, kind, per_task, seed) for split, members in groups.items()}
    empty = next((split for split, members in rows.items() if not members), None)
    if empty is not None:
        why = (
            "no task has two attempts with different rewards" if kind == "preferences" else "no attempt is a clean fix"
        )
        raise UserError(f"the split {empty!r} would be empty, because {why}: give runs with more attempts")
    with completed_folder(folder) as made:
        (made / "data").mkdir()
        for split, members in rows.items():
            text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in members)
            (made / "data" / f"{split}.jsonl").write_text(text, "utf-8")
        (made / "README.md").write_text(_card(name or folder.name, kind, rows, attempts), "utf-8")
    return SharedDataset(folder, {split: len(members) for split, members in rows.items()})


def _rows(
    attempts: Sequence[LabelledAttempt], kind: SharedKind, per_task: int | None, seed: int
) -> list[dict[str, Any]]:
    if kind == "preferences":
        honest = [each for each in attempts if not _deceives(each)]
        found = pairs(honest, per_task=per_task, seed=seed)
        return [_pair(honest[each.chosen], honest[each.rejected], each.margin) for each in found]
    clean = [each for each in attempts if each.labels.get(Component.CLEAN) and each.patch and not _deceives(each)]
    return [_example(each) for each in sorted(clean, key=lambda each: (*each.group, each.patch))]


def _deceives(attempt: LabelledAttempt) -> bool:
    """Its reward is that of deceived tests."""
    return attempt.origin is PatchOrigin.CHEAT


def _pair(chosen: LabelledAttempt, rejected: LabelledAttempt, margin: float) -> dict[str, Any]:
    return {
        "prompt": prompt_text(chosen),
        "chosen": chosen.patch,
        "rejected": rejected.patch,
        "task_id": chosen.task_id,
        "repository": chosen.repository,
        "chosen_reward": chosen.reward,
        "rejected_reward": rejected.reward,
        "margin": margin,
        "chosen_policy": chosen.policy,
        "rejected_policy": rejected.policy,
    }


def _example(attempt: LabelledAttempt) -> dict[str, Any]:
    return {
        "prompt": prompt_text(attempt),
        "completion": attempt.patch,
        "task_id": attempt.task_id,
        "repository": attempt.repository,
        "reward": attempt.reward,
        "policy": attempt.policy,
    }


def prompt_text(attempt: LabelledAttempt) -> str:
    """The task as text: its instruction, its FAIL_TO_PASS tests and the failure of one of them."""
    names = [f"- {test}" for test in attempt.fail_to_pass[:MOST_TESTS]]
    if (more := len(attempt.fail_to_pass) - MOST_TESTS) > 0:
        names.append(f"- and {more} more")
    parts = [attempt.instruction.strip()]
    if names:
        parts.append("Tests that must pass:\n" + "\n".join(names))
    if attempt.failure.strip():
        parts.append("The failure of one of them:\n" + attempt.failure.strip())
    return "\n\n".join(part for part in parts if part) + "\n"


def _card(
    name: str, kind: SharedKind, rows: dict[str, list[dict[str, Any]]], attempts: Sequence[LabelledAttempt]
) -> str:
    total = sum(map(len, rows.values()))
    size = next((label for most, label in SIZES if total < most), "n>1M")
    files = "".join(f"      - split: {split}\n        path: data/{split}.jsonl\n" for split in rows)
    what = "Preference pairs" if kind == "preferences" else "SFT examples"
    listed = [row for members in rows.values() for row in members]
    return f"""---
pretty_name: {json.dumps(name, ensure_ascii=True)}
task_categories:
  - text-generation
tags:
  - code
  - {"preference" if kind == "preferences" else "sft"}
  - regrade
size_categories:
  - {size}
configs:
  - config_name: default
    data_files:
{files}---

# {name}

{what} made of {len(attempts)} executed attempts at {len({each.group for each in attempts})} tasks by Regrade. Each
reward comes from the tests of its task, run on the patch; unscored attempts are left out.

{_table("split", {split: len(members) for split, members in rows.items()})}
{_table("repository", Counter(row["repository"] for row in listed))}
| column | meaning |
|-|-|
{"".join(f"| `{column}` | {meaning} |{chr(10)}" for column, meaning in COLUMNS[kind].items())}
```python
from datasets import load_dataset

dataset = load_dataset("FOLDER")
```

The patches and the texts of the tasks have the licences of their repositories.
"""


def _table(heading: str, counts: dict[str, int] | Counter[str]) -> str:
    lines: Iterable[str] = (f"| {name} | {count} |\n" for name, count in sorted(counts.items()))
    return f"| {heading} | rows |\n|-|-|\n{''.join(lines)}"
