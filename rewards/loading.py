"""Loading a reward by its name: a built-in one, or `FILE:NAME` for one in the user's own file."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from regrade.datasets.errors import UserError
from regrade.datasets.user_files import run_file
from regrade.rewards.algebra import Reward, Sum
from regrade.rewards.builtin import builtin_rewards
from regrade.rewards.learned import learned_of

T = TypeVar("T")


def load_reward(spec: str) -> Reward:
    """The reward that `spec` names: `default`, `tests`, ..., `learned:FOLDER` of a reward model, or `FILE:NAME`.

    Each call runs the file once; it may import modules of its own folder.

    Raises:
        UserError: unknown reward, missing file, an error in the file, or a name of something other than a reward.
    """
    return load_named(spec, (Reward,))


def load_named(spec: str, kinds: tuple[type[T], ...]) -> Reward | T:
    """As `load_reward`, of values of other kinds as well."""
    if not isinstance(spec, str):
        raise UserError(f"{spec!r} is not a reward's name: pass one such as 'default', or 'FILE:NAME' for your own")
    builtins = builtin_rewards()
    if spec in builtins:
        return builtins[spec]
    if (of_model := learned_of(spec)) is not None:
        return of_model
    file, _, name = spec.rpartition(":")
    if not file or not name:
        raise UserError(_unknown(spec, builtins))
    path = Path(file)
    if not path.is_file():
        raise UserError(f"reward {spec!r}: there is no file {file!r}: pass FILE:NAME with the path of a Python file")
    module = _run(path, spec)
    value = getattr(module, name, None)
    if isinstance(value, Sum):
        return value.named(name)
    if isinstance(value, kinds):
        return value
    raise UserError(_not_a_reward(module, spec, name, value, kinds))


def _unknown(spec: str, builtins: Collection[str]) -> str:
    path = Path(spec.removesuffix(":"))
    if not path.is_file():
        return f"unknown reward {spec!r}: choose one of {', '.join(builtins)}, or pass FILE:NAME for your own"
    return (
        f"reward {spec!r} names a file without a reward: pass {path}:NAME; {_rewards_in(_run(path, spec), (Reward,))}"
    )


def _run(path: Path, spec: str) -> ModuleType:
    # A unique name, so that a user's rewards.py or reports.py never shadows a package of that name.
    module_name = f"regrade_reward_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{path.stem}"
    if path.suffix != ".py":
        raise UserError(f"reward {spec!r}: {str(path)!r} is not a Python file: its name must end in .py")
    try:
        return run_file(path, module_name)
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit of the file must not look like a success
        raise UserError(f"reward {spec!r}: {_where(error, path)}: {type(error).__name__}: {error}") from error


def _where(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{error.filename or path}:{error.lineno}"
    file = str(path.resolve())
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if str(Path(frame.filename).resolve()) == file
    ]
    return f"{path}:{frames[-1].lineno}" if frames else str(path)


def _not_a_reward(module: ModuleType, spec: str, name: str, value: object, kinds: tuple[type, ...]) -> str:
    if callable(value):
        return f"reward {spec!r}: {name} is a plain function: decorate it with @reward"
    if value is not None:
        return f"reward {spec!r}: {name} is {value!r}, not a reward: compose one, such as 0.6 * tests + 0.4 * style"
    return f"reward {spec!r}: {module.__file__!r} has no {name!r}; {_rewards_in(module, kinds)}"


def _rewards_in(module: ModuleType, kinds: tuple[type, ...]) -> str:
    names = sorted(key for key, value in vars(module).items() if isinstance(value, kinds))
    return f"its rewards: {', '.join(names) or 'none'}"
