"""Harbor: the verifier's program writes the file, and Harbor's own parser reads it."""

import shutil
from pathlib import Path

from harbor.models.trial.paths import TrialPaths
from harbor.verifier.verifier import RewardFileNotFoundError, Verifier
from shared import BREAK, FIX, LOST, report, values

from regrade.policy_training.adapters import harbor
from regrade.policy_training.adapters.configured import configured_verdicts

expected = values()
verdicts = configured_verdicts()


class ReadingVerifier(Verifier):
    """Harbor's verifier, of which only the reading of results runs: it needs no container."""

    def __init__(self, paths: TrialPaths) -> None:
        self.trial_paths = paths


def trial(name: str, answer: str) -> tuple[int, TrialPaths]:
    """The tree as an agent leaves it, judged into the trial's folder."""
    paths = TrialPaths(trial_dir=Path(name).absolute())
    paths.verifier_dir.mkdir(parents=True)
    tree = Path(name, "app")
    shutil.copytree("library", tree)
    patch = verdicts.patch_of(verdicts.task("second"), answer)
    assert patch is not None
    for file in patch.files:
        (tree / file.path).write_text(answer_applied(tree / file.path, answer))
    paths.reward_json_path.write_text("{}")  # what an earlier attempt left must not count
    return harbor.main(["second", str(tree), str(paths.reward_json_path)]), paths


def answer_applied(file: Path, answer: str) -> str:
    lines = answer.splitlines()
    middle = lines.index("=======")
    return file.read_text().replace("\n".join(lines[2:middle]), "\n".join(lines[middle + 1 : -1]))


code, paths = trial("fixed", FIX)
rewards = ReadingVerifier(paths)._parse_reward_json()
assert (code, rewards["reward"], rewards["resolved"]) == (0, expected["fix"], 1.0)
code, paths = trial("broke", BREAK)
assert (code, ReadingVerifier(paths)._parse_reward_json()["reward"]) == (0, expected["break"])
code, paths = trial("lost", LOST)
assert code == 1
assert not paths.reward_json_path.exists()
assert not paths.reward_text_path.exists()
assert issubclass(RewardFileNotFoundError, Exception)
report(
    "harbor",
    "the verifier's program on three working trees, the package's paths of a trial and its parser of rewards",
    "no file, which Harbor reports as `RewardFileNotFoundError`; a file of an earlier attempt is removed",
)
