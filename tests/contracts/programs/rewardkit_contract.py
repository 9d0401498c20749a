"""RewardKit: a tests folder with the criterion, run by the package's runner."""

import json
import shutil
from pathlib import Path

import rewardkit
from shared import FIX, LOST, refused, report, values

expected = values()
CRITERIA = """\
import rewardkit
import regrade.policy_training.adapters.rewardkit

rewardkit.regrade(task_id="second", weight=1.0)
"""


def rewards(name: str, answer: str) -> dict:
    folder = Path(name)
    shutil.copytree("library", folder / "app")
    lines = answer.splitlines()
    middle = lines.index("=======")
    file = folder / "app" / "library.py"
    file.write_text(file.read_text().replace("\n".join(lines[2:middle]), "\n".join(lines[middle + 1 : -1])))
    (folder / "tests").mkdir()
    (folder / "tests" / "criteria.py").write_text(CRITERIA)
    out = folder / "reward.json"
    rewardkit.run(folder / "tests", workspace=folder / "app", output=out)
    return json.loads(out.read_text())


assert expected["fix"] in [round(value, 12) for value in rewards("fixed", FIX).values()]
kind = refused(lambda: rewards("lost", LOST))
assert not Path("lost", "reward.json").exists()
report(
    "harbor-rewardkit",
    "the package's discovery and runner on a tests folder with the criterion",
    f"the runner raises `{kind}` and writes no `reward.json`",
)
