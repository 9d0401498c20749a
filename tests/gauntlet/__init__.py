"""The gauntlet: known exploits of test-based scoring, each run against real scorers together with an honest twin.

    PYTHONPATH=tests python -m gauntlet        # or `make gauntlet`: prints the table, writes benchmarks/gauntlet.json

`attacks/` has the exploits as data, `target.py` the repository that they attack, `naive.py` common scoring methods,
`levels.py` the assurance levels of Regrade, `play.py` the runs.
"""
