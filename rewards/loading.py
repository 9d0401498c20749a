"""A reward by its name: a built-in one, or `FILE:NAME` for one in the user's own file."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

from regrade.datasets.errors import UserError
from regrade.rewards.algebra import Reward, Sum
from regrade.rewards.builtin import builtin_rewards


def load_reward(spec: str) -> Reward:
    """The reward that `spec` names: `default`, `tests`, ... or `FILE:NAME`.

    A file is run once per call; what it imports from its own folder works.

    Raises:
        UserError: there is no such reward or file, the file fails, or the name is no reward.
    """
    if not isinstance(spec, str):
        raise UserError(f"{spec!r} is no name of a reward: give one such as 'default', or 'FILE:NAME' for your own")
    known = builtin_rewards()
    if spec in known:
        return known[spec]
    file, _, name = spec.rpartition(":")
    if not file or not name:
        raise UserError(_unknown(spec, known))
    path = Path(file)
    if not path.is_file():
        raise UserError(f"reward {spec!r}: there is no file {file!r}: give FILE:NAME, FILE being a Python file")
    module = _run(path, spec)
    found = getattr(module, name, None)
    if isinstance(found, Sum):
        return found.named(name)
    if isinstance(found, Reward):
        return found
    raise UserError(_not_a_reward(module, spec, name, found))


def _unknown(spec: str, known: Collection[str]) -> str:
    path = Path(spec.removesuffix(":"))
    if not path.is_file():
        return f"unknown reward {spec!r}: choose one of {', '.join(known)}, or give FILE:NAME for your own"
    return f"reward {spec!r} names a file and no reward in it: give {path}:NAME; {_rewards_in(_run(path, spec))}"


def _run(path: Path, spec: str) -> ModuleType:
    # A name of its own, so that a user's rewards.py or reports.py never stands in for a package of that name.
    module_name = f"regrade_reward_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(module_name, path)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f"reward {spec!r}: {str(path)!r} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module  # dataclasses and pickle look their module up there
    folder = str(path.resolve().parent)
    sys.path.append(folder)
    try:
        module_spec.loader.exec_module(module)
    except UserError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a file that exits must not look like work well done
        raise UserError(f"reward {spec!r}: {_where(error, path)}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    return module


def _where(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{error.filename or path}:{error.lineno}"
    file = str(path.resolve())
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if str(Path(frame.filename).resolve()) == file
    ]
    return f"{path}:{frames[-1].lineno}" if frames else str(path)


def _not_a_reward(module: ModuleType, spec: str, name: str, found: object) -> str:
    if callable(found):
        return f"reward {spec!r}: {name} is a plain function: decorate it with @reward"
    if found is not None:
        return f"reward {spec!r}: {name} is {found!r}, no reward: compose one, such as 0.6 * tests + 0.4 * style"
    return f"reward {spec!r}: {module.__file__!r} has no {name!r}; {_rewards_in(module)}"


def _rewards_in(module: ModuleType) -> str:
    names = sorted(key for key, value in vars(module).items() if isinstance(value, Reward))
    return f"the rewards in it: {', '.join(names) or 'none'}"
