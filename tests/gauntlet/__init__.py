"""The gauntlet: every known way to cheat a verdict that rests on tests, played for real beside an honest twin.

    PYTHONPATH=tests python -m gauntlet        # or `make gauntlet`: prints the table, writes benchmarks/gauntlet.json

`attacks/` holds the cheats as data, `target.py` the repository that they are played on, `naive.py` the scorers that
stand for what is usual, `levels.py` the assurance levels of Regrade, `play.py` the game.
"""
