"""Languages whose functions are mutated by their tree-sitter syntax tree: one row each, with the types of its nodes.

The operators in `syntax_operators.py` know no language: what they need of one is a field here. Languages of one family
share most types, so a row stays short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

import tree_sitter
import tree_sitter_go
import tree_sitter_javascript
import tree_sitter_typescript


@dataclass(frozen=True, eq=False, kw_only=True)
class Grammar:
    """The node types of one language, and the text of what a mutant writes."""

    suffixes: tuple[str, ...]
    grammar: Callable[[], object]
    functions: frozenset[str]
    """Named functions and methods, with the fields `name` and `body`."""
    owners: Mapping[str, str]
    """Type of a node around methods -> the field with its name; of a method itself: the field with its receiver."""
    assigned_functions: frozenset[str]
    """Functions without a name; one that is the value of a `variable_declarator` has the name of that."""
    blocks: frozenset[str]
    """Statements between braces."""
    lists: frozenset[str]
    """Nodes around the statements of a block, if there are any."""
    arguments: frozenset[str]
    integers: frozenset[str]
    leaving: frozenset[str]
    """Statements that leave their block."""
    skipped: frozenset[str]
    """Statements without a behaviour that tests check: messages and imports."""
    is_typed: bool
    """Does the compiler refuse a missing argument, a negated number, or a variable of another type?"""
    missing_body: str
    """What a function without an implementation does."""

    @cached_property
    def language(self) -> tree_sitter.Language:
        return tree_sitter.Language(self.grammar())

    def parse(self, text: str) -> tree_sitter.Tree:
        return tree_sitter.Parser(self.language).parse(text.encode("utf-8", "surrogateescape"))


def _script(suffixes: tuple[str, ...], grammar: Callable[[], object]) -> Grammar:
    return Grammar(
        suffixes=suffixes,
        grammar=grammar,
        functions=frozenset({"function_declaration", "generator_function_declaration", "method_definition"}),
        owners={"class_declaration": "name", "class": "name"},
        assigned_functions=frozenset({"arrow_function", "function_expression"}),
        blocks=frozenset({"statement_block"}),
        lists=frozenset(),
        arguments=frozenset({"arguments"}),
        integers=frozenset({"number"}),
        leaving=frozenset({"return_statement", "throw_statement", "continue_statement", "break_statement"}),
        skipped=frozenset({"throw_statement", "import_statement", "template_string"}),
        is_typed=False,
        missing_body='throw new Error("not implemented")',
    )


GRAMMARS = (
    _script((".js", ".mjs", ".cjs", ".jsx"), tree_sitter_javascript.language),
    _script((".ts", ".mts", ".cts"), tree_sitter_typescript.language_typescript),
    _script((".tsx",), tree_sitter_typescript.language_tsx),
    Grammar(
        suffixes=(".go",),
        grammar=tree_sitter_go.language,
        functions=frozenset({"function_declaration", "method_declaration"}),
        owners={"method_declaration": "receiver"},
        assigned_functions=frozenset(),
        blocks=frozenset({"block"}),
        lists=frozenset({"statement_list"}),
        arguments=frozenset({"argument_list"}),
        integers=frozenset({"int_literal"}),
        leaving=frozenset({"return_statement", "continue_statement", "break_statement"}),
        skipped=frozenset({"import_declaration", "const_declaration"}),
        is_typed=True,
        missing_body='panic("not implemented")',
    ),
)
_BY_SUFFIX = {suffix: grammar for grammar in GRAMMARS for suffix in grammar.suffixes}


def grammar_of(path: str) -> Grammar | None:
    """The grammar of a file, by its suffix; None: its functions are not mutated by one."""
    return None if path.endswith(".d.ts") else _BY_SUFFIX.get(PurePosixPath(path).suffix)
