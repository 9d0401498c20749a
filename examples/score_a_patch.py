"""Score two patches on a local repository: the right fix, and one that makes the failing test pass and breaks others.

python examples/score_a_patch.py
"""

from pathlib import Path

from regrade.datasets.patches import Patch
from regrade.evaluators import Scorer, local_task
from regrade.rewards import default

HERE = Path(__file__).resolve().parent

task = local_task(HERE / "shop", fail_to_pass=["tests/test_prices.py::test_net"])
names = ["fix", "bold"]
patches = [Patch((HERE / "patches" / f"{name}.diff").read_text("utf-8")) for name in names]
with Scorer() as scorer:
    breakdowns = scorer.score([(task, patch) for patch in patches], default)
for name, breakdown in zip(names, breakdowns, strict=True):
    print(name)
    print(breakdown)  # the contributions add up to the value, each with its reason
