"""Foreign text, such as a test's message, made safe to print."""

from __future__ import annotations

import unicodedata

OBEYED = frozenset({"Cc", "Cf", "Cs"})
"""Unicode categories of control and format characters, and of halves of surrogate pairs."""


def visible(text: str) -> str:
    """The text with escapes for the characters that a terminal would obey, reorder or fail to encode.

    A patch controls the messages of its tests: it must not move the cursor over its score.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_harmless(character) else _escaped(character) for character in text)


def _is_harmless(character: str) -> bool:
    return character in "\n\t" or unicodedata.category(character) not in OBEYED


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
