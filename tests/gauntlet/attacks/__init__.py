"""The exploits, one module for each method. Only `play.py` runs them, and outside of a sandbox only harmless ones."""

from __future__ import annotations

from gauntlet.attack import Attack
from gauntlet.attacks import (
    answers,
    beyond,
    leaving,
    machinery,
    outside,
    reports,
    rewritten,
    test_files,
    trees,
    unusual_places,
    weak_tests,
)
from gauntlet.honest_styles import in_unusual_styles

ATTACKS: tuple[Attack, ...] = in_unusual_styles(
    sorted(
        (
            *test_files.ATTACKS,
            *leaving.ATTACKS,
            *answers.ATTACKS,
            *machinery.ATTACKS,
            *reports.ATTACKS,
            *outside.ATTACKS,
            *trees.ATTACKS,
            *beyond.ATTACKS,
            *unusual_places.ATTACKS,
            *rewritten.ATTACKS,
            *weak_tests.ATTACKS,
        ),
        key=lambda attack: (attack.row.startswith("+"), int(attack.row.lstrip("+")), attack.name),
    )
)

NOT_PLAYED = {
    51: "about `style`, not about tests: tests/evaluators/static/test_static_lint.py",
    52: "about `style`, not about tests: tests/evaluators/static/test_static_lint.py",
    53: "about `complexity`, not about tests: tests/evaluators/static/test_static_complexity.py",
    54: "about `complexity`, not about tests: tests/evaluators/static/test_static_complexity.py",
    55: "about `complexity`, not about tests: tests/evaluators/static/test_static_complexity.py",
    57: "about type checkers, whose verdict no reward rests on",
}
"""Row of the catalogue that does not apply to tests -> reason."""
