"""Harbor: the verifier's program writes the file, and Harbor's own parser reads it."""

import shutil
from pathlib import Path

from harbor.metrics.mean import Mean
from harbor.models.trial.paths import TrialPaths
from harbor.models.trial.result import TrialResult
from harbor.models.verifier.result import VerifierResult
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

# A job's metrics are of the trials whose reward is valid (`Job.run`): that of a trial without a file is not.
results = [
    TrialResult.model_construct(verifier_result=result, exception_info=None, step_results=None)
    for result in (VerifierResult(rewards=rewards), VerifierResult(rewards={"reward": expected["break"]}), None)
]
assert [result.reward_valid for result in results] == [True, True, False]
counted = [result.verifier_result.rewards for result in results if result.reward_valid]
mean = Mean().compute(counted)["reward"]
assert abs(mean - (expected["fix"] + expected["break"]) / 2) < 1e-12, mean
report(
    "harbor",
    "the verifier's program on three working trees; the package's paths of a trial, parser, results and mean",
    "no file: `RewardFileNotFoundError`, an invalid reward, and the mean is that of the two others",
)
