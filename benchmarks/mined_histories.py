"""Fix commits of real repositories become tasks, without any setting, as a new user would mine them.

Each is a public repository at a pinned commit. Its bare clone is given to `regrade tasks build --source commits` with a
limit and nothing else. The table has the commits that are read, those that change code and tests (the candidates), how
many of them were tried until the limit was reached, the valid tasks with the seconds of all executions for each, and
why the others were dropped. At last, each task is scored with its reference, which must get 1, and without any change,
which must get 0. The figures of a built repository are stored in the folder, so that the same command goes on where it
was stopped.

    python benchmarks/mined_histories.py --out /tmp/mined
    python benchmarks/mined_histories.py --out /tmp/mined --only addict --clones FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _latest import record
from ten_repositories import built

from regrade.datasets.mining.git_history import GitHistory
from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.evaluators import Scorer
from regrade.evaluators.task_curation.commit_tasks import MOST_COMMITS, fix_commits
from regrade.rewards import builds, tests, untampered

FIX = tests.only_if(builds, untampered)


@dataclass(frozen=True, kw_only=True)
class History:
    """A public repository, with the commit that is its newest one here."""

    owner: str
    name: str
    commit: str

    def clone(self, place: Path, clones: Path | None) -> Path:
        """A bare clone that ends with the pinned commit; of `clones/NAME.git`, or of GitHub."""
        folder = place / f"{self.name}.git"
        if not folder.is_dir():
            source = str(clones / folder.name) if clones else f"https://github.com/{self.owner}/{self.name}.git"
            subprocess.run(["git", "clone", "--quiet", "--bare", source, str(folder)], check=True)
        subprocess.run(["git", "update-ref", "HEAD", self.commit], cwd=folder, check=True)
        return folder


HISTORIES = (
    History(owner="mewwts", name="addict", commit="75284f9593dfb929cadd900aff9e35e7c7aec54b"),
    History(owner="pallets", name="markupsafe", commit="1251593f6b0e3b45f2cc8aba662622bc22d6a5e2"),
    History(owner="pallets", name="itsdangerous", commit="672971d66a2ef9f85151e53283113f33d642dabd"),
    History(owner="pytoolz", name="toolz", commit="568c2b8393973cd172a466546c9d95779c452438"),
    History(owner="jaraco", name="inflect", commit="262a247d2d99a47a520cdb2d46adb90df88b4326"),
    History(owner="python-humanize", name="humanize", commit="c3a124cdeb272d7f63bc0aa66f79c6fbafd2fc6d"),
    History(owner="msiemens", name="tinydb", commit="2283a2b556d5ef361b61bae8ed89c0ce0730d7c8"),
    History(owner="un33k", name="python-slugify", commit="7b6d5d96c1995e6dccb39a19a13ba78d7d0a3ee4"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for clones, task sets and figures")
    parser.add_argument("--clones", type=Path, help="folder with bare clones NAME.git; default: GitHub")
    parser.add_argument("--limit", type=int, default=5, help="tasks of one repository")
    parser.add_argument("--only", action="append", help="name of a repository; repeat for more")
    parser.add_argument("--workers", type=int, help="parallel sandboxes; default: one per core")
    chosen = parser.parse_args()
    options = ["--source", "commits", "--limit", str(chosen.limit)]
    if chosen.workers:
        options += ["--workers", str(chosen.workers)]
    selected = [each for each in HISTORIES if not chosen.only or each.name in chosen.only]
    figures = {each.name: _mined(each, options, chosen.out.resolve(), chosen.clones) for each in selected}
    _print_table(selected, figures)
    if not chosen.only:
        record("mined_histories", {"limit": chosen.limit, "repositories": figures})


def _mined(history: History, options: Sequence[str], out: Path, clones: Path | None) -> Mapping[str, Any]:
    """The figures of one repository, from the folder if they are there."""
    stored = out / f"{history.name}.json"
    if stored.is_file():
        return json.loads(stored.read_text())  # type: ignore[no-any-return]
    clone = history.clone(out / "clones", clones)
    commits = GitHistory(clone, history.commit)
    read = {"commit": history.commit, "read": len(list(commits.commits(MOST_COMMITS)))}
    figures = {**read, "candidates": len(list(fix_commits(commits))), **built(str(clone), options, out, history.name)}
    if "yield" not in figures:  # a failure may be that of a busy machine: the same command tries again
        return figures
    figures["scores"] = _scores(out / history.name, Path(os.environ.get("REGRADE_CACHE", out / "cache")))
    stored.write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def _scores(folder: Path, cache: Path) -> Mapping[str, int]:
    """How many tasks give 1 to their reference, and 0 to no change. Tests decide, not style and size of the change."""
    mined = load_tasks(folder)
    with Scorer(cache=cache) as scorer:
        fixed = scorer.score([(task, task.reference or Patch("")) for task in mined], FIX)
        unchanged = scorer.score([(task, Patch("")) for task in mined], FIX)
    return {
        "tasks": len(mined),
        "reference_1": sum(each.value == 1 for each in fixed),
        "no_change_0": sum(each.value == 0 for each in unchanged),
    }


def _print_table(histories: Sequence[History], figures: Mapping[str, Mapping[str, Any]]) -> None:
    print(
        "| repository, commit | read | candidates | tasks of tried, seconds each | dropped | reference 1, no change 0 |"
    )
    print("|-|-|-|-|-|-|")
    for each in histories:
        own = figures[each.name]
        name = f"{each.owner}/{each.name} {each.commit[:8]}"
        if "yield" not in own:
            print(f"| {name} | {own['read']} | {own['candidates']} | {own['reason']} | | |")
            continue
        row, scores = own["yield"]["commits"], own["scores"]
        dropped = "; ".join(f"{reason}: {count}" for reason, count in row["dropped"].items())
        cost = f"{row['seconds'] / row['valid']:.1f}" if row["valid"] else ""
        print(
            f"| {name} | {own['read']} | {own['candidates']} | {row['valid']} of {row['tried']}, {cost} | {dropped} "
            f"| {scores['reference_1']}, {scores['no_change_0']} of {scores['tasks']} |"
        )


if __name__ == "__main__":
    main()
