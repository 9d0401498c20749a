"""Checks of a reward function's signature, at its declaration, never at a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import get_type_hints

from regrade.rewards.errors import RewardError
from regrade.rewards.score import Score


def evidence_types(function: Callable[..., object]) -> dict[str, type]:
    """Parameter name -> type of evidence.

    Raises:
        RewardError: no plain function, a parameter without an evidence type (a frozen dataclass), or no Score result.
    """
    if not inspect.isfunction(function):
        raise RewardError(f"@reward is for functions, not {function!r}: write `@reward` above a `def`")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise _wrong(function, "is asynchronous or a generator", "write a plain `def` that returns a Score")
    hints = _hints(function)
    parameters = inspect.signature(function).parameters
    if not parameters:
        raise _wrong(function, "takes no evidence", "add at least one parameter, such as `diff: Diff`")
    for name, parameter in parameters.items():
        _check_parameter(function, parameter, hints.get(name))
    if hints.get("return") is not Score:
        raise _wrong(function, "must be annotated to return a Score", "write `-> Score:`")
    return {name: hints[name] for name in parameters}


def _hints(function: Callable[..., object]) -> dict[str, type]:
    try:
        return get_type_hints(function)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        advice = "import the type at the top of the module, not only under TYPE_CHECKING"
        raise _wrong(function, f"has an annotation that cannot be resolved ({error})", advice) from error


def _check_parameter(function: Callable[..., object], parameter: inspect.Parameter, hint: object) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
        raise _wrong(function, f"has the parameter {str(parameter)!r}", "use one parameter for each evidence type")
    if hint is None:
        advice = f"annotate it, such as `{parameter.name}: TestRun`"
        raise _wrong(function, f"has the parameter {parameter.name!r} without an evidence type", advice)
    options = getattr(hint, "__dataclass_params__", None)  # dataclasses store the arguments of @dataclass there
    if not (isinstance(hint, type) and is_dataclass(hint) and options and options.frozen):
        name = getattr(hint, "__name__", hint)
        advice = "use a type of regrade.rewards.evidence, or your own frozen dataclass with a probe"
        raise _wrong(function, f"takes {parameter.name!r} of type {name!r}, which is not an evidence type", advice)


def _wrong(function: Callable[..., object], problem: str, advice: str) -> RewardError:
    code = getattr(function, "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
    return RewardError(f"reward {getattr(function, '__name__', function)!r}{where} {problem}: {advice}")
