"""Mutants of JavaScript, TypeScript and Go, by one set of operators."""

from __future__ import annotations

import pytest

from regrade.datasets.mutation.mutants import LONG
from regrade.datasets.mutation.syntax_mutations import SyntaxMutations, mutations_of, parses

GO = """\
package shop

// Total is the sum of the prices; "für" é.
func (s *Shop[T]) Total(prices []int, most int) (int, error) {
	if most < 1 {
		return 0, errors.New("none")
	}
	sum := 0
	for i, price := range prices {
		if i >= most && !s.open {
			break
		} else {
			s.note(i, price)
		}
		sum += price - 1
	}
	return sum, nil
}
"""
TYPESCRIPT = """\
export class Cart {
  add(item: Item, count: number = 1): number {
    if (!item) {
      throw new Error("é");
    }
    this.items[0] = item;
    console.log(count, 3);
    return count > 0 ? this.sum(item, count) : 0;
  }
}

export const first = (items: Item[]) => { return items[0]; };
"""


def edited(text: str, file: str, function: str, kind: str) -> list[tuple[str, str]]:
    mutations = mutations_of(text, file, LONG)
    (target,) = (each for each in mutations.functions if each.name == function)
    mutants = mutations.of(target, [kind])
    for mutant in mutants:
        assert mutations.differs(mutant), mutant.mutated_line
        assert mutations.find(function, kind, mutant.place) == mutant
        assert mutant.source.count("\n") == text.count("\n") + mutant.edit.text.count("\n") + 1 - mutant.edit.lines
    return [(mutant.original_line.strip(), mutant.mutated_line.strip()) for mutant in mutants]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("boundary", [("if most < 1 {", "if most <= 1 {"), ("if i >= most && !s.open {", "if i > most && !s.open {")]),
        ("logical-operator", [("if i >= most && !s.open {", "if i >= most || !s.open {")]),
        ("removed-negation", [("if i >= most && !s.open {", "if i >= most && s.open {")]),
        ("loop-control", [("break", "continue")]),
        ("swapped-arguments", [("s.note(i, price)", "s.note(price, i)")]),
        ("swapped-operands", [("sum += price - 1", "sum += 1 - price")]),
        ("off-by-one", [("sum += price - 1", "sum += price")]),
        ("assignment-operator", [("sum += price - 1", "sum = price - 1")]),
        ("dropped-statement", [("s.note(i, price)", "")]),
        ("removed-guard", [('if most < 1 {\n\t\treturn 0, errors.New("none")\n\t}', "")]),
        ("missing-argument", []),
        ("wrong-variable", None),
    ],
)
def test_kinds_in_go(kind: str, expected: list[tuple[str, str]] | None) -> None:
    found = edited(GO, "shop.go", "Shop.Total", kind)
    if expected is None:
        assert ("return sum, nil", "return i, nil") in found
        assert all(":=" not in old or "range" in old for old, _ in found), "a declared name stays"
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "comparison-operator",
            [("return count > 0 ? this.sum(item, count) : 0;", "return count < 0 ? this.sum(item, count) : 0;")],
        ),
        (
            "conditional-expression",
            [("return count > 0 ? this.sum(item, count) : 0;", "return count > 0 ? 0 : this.sum(item, count);")],
        ),
        ("index", [("this.items[0] = item;", "this.items[1] = item;")]),
        (
            "missing-argument",
            [("return count > 0 ? this.sum(item, count) : 0;", "return count > 0 ? this.sum(item) : 0;")],
        ),
        ("dropped-statement", [("this.items[0] = item;", "")]),
        ("removed-guard", [('if (!item) {\n      throw new Error("é");\n    }', "")]),
    ],
)
def test_kinds_in_typescript(kind: str, expected: list[tuple[str, str]]) -> None:
    assert edited(TYPESCRIPT, "cart.ts", "Cart.add", kind) == expected


def test_functions_have_the_names_of_their_owners_and_variables() -> None:
    assert [each.name for each in SyntaxMutations(TYPESCRIPT, "cart.ts", LONG).functions] == ["Cart.add", "first"]
    assert [each.name for each in SyntaxMutations(GO, "shop.go", LONG).functions] == ["Shop.Total"]


def test_a_removed_body_leaves_the_declaration() -> None:
    ((_, text),) = edited(GO, "shop.go", "Shop.Total", "removed-body")
    assert text == 'panic("not implemented")'
    assert edited(TYPESCRIPT, "cart.ts", "first", "removed-body") == [], "one line is no feature"


def test_bugs_of_two_edits() -> None:
    pairs = edited(GO, "shop.go", "Shop.Total", "several")
    assert pairs
    assert all("\n" in old for old, _ in pairs)


def test_what_does_not_parse_is_left_out() -> None:
    assert not parses("func (", "a.go")
    assert not parses("anything", "a.txt")
    assert parses(GO, "shop.go")
