"""Tool calls of chat models: the tools' JSON schemas, and the execution of a call as one step.

The form is OpenAI's: `{"type": "function", "function": {"name", "description", "parameters"}}`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from regrade.policy_training.environments.agent_tools import TOOLS, RepositoryEnvironment, argument_types


def tool_schemas() -> list[dict[str, Any]]:
    """The tools of `RepositoryEnvironment` as a chat request describes them."""
    return [_schema(name) for name in TOOLS]


def _schema(name: str) -> dict[str, Any]:
    text = inspect.getdoc(getattr(RepositoryEnvironment, name)) or ""
    description, _, arguments = text.partition("\n\nArgs:\n")
    schema = msgspec.json.schema(argument_types()[name])["$defs"][name]
    properties = schema["properties"]
    for parameter, words in re.findall(r"^ {4}(\w+): ((?:.*)(?:\n {8}.*)*)", arguments, re.MULTILINE):
        properties[parameter]["description"] = " ".join(words.split())
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": " ".join(description.split()),
            "parameters": {"type": "object", "properties": properties, "required": schema.get("required", [])},
        },
    }


def call_tool(environment: RepositoryEnvironment, name: str, arguments: str | Mapping[str, Any]) -> str:
    """Execute a call of a tool by its name; returns the observation.

    A call that cannot be executed (no such tool, arguments that are no JSON object) is a step as well: it counts
    against the budget, and the observation says what is wrong.

    Args:
        arguments: an object, or its JSON text.
    """
    session = environment.session
    if name not in TOOLS:
        return session.unreadable(f"there is no tool {name[:100]!r}; the tools are {', '.join(TOOLS)}")
    values = read_arguments(arguments)
    if values is None:
        return session.unreadable(f"{name}: the arguments are no JSON object")
    return str(getattr(environment, name)(**values))


def read_arguments(arguments: object) -> dict[str, Any] | None:
    """The arguments of a call, from an object or its JSON text; None if they are neither."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return None
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        return None
    return dict(arguments)
