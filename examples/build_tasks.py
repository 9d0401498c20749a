"""Build validated tasks from a repository: bugs planted in its functions, each confirmed by its tests.

python examples/build_tasks.py FOLDER_OF_THE_NEW_TASKS
"""

import sys
from pathlib import Path

from regrade.evaluators import Scorer, built_repository, write_tasks

HERE = Path(__file__).resolve().parent

with Scorer() as scorer:
    # Tests that need other packages than pytest: leave `python` out, and an environment is built for them.
    repository = built_repository(HERE / "shop", scorer, limit=3, runs=2, python=sys.executable)
    built = write_tasks([repository], sys.argv[1], sources=["mutation"])
for task in built.tasks:
    print(task.id, task.kind, "fails", ", ".join(task.fail_to_pass), "guarded by", len(task.pass_to_pass), "tests")
print(f"{built.yields.total().tried} candidates, {len(built.tasks)} valid tasks in {built.folder}")
