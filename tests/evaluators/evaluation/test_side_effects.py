"""Hops, relevance and collateral of patches to a small package with known imports."""

from dataclasses import replace

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Shown, Task
from regrade.evaluators.analysis import side_metrics as side
from regrade.evaluators.analysis.metrics import estimate
from regrade.evaluators.evaluation.broken_places import places_of
from regrade.evaluators.evaluation.footprint import footprint, hops_of, relevance
from regrade.evaluators.storage.rows import COLUMNS, table

FILES = {
    "shop/__init__.py": "",
    "shop/tax.py": "RATE = 0.2\n\n\ndef tax(price):\n    return price * RATE\n\n\ndef net(price):\n    return price\n",
    "shop/prices.py": "from shop.tax import tax\n\n\ndef gross(price):\n    return price + tax(price)\n",
    "shop/orders.py": "from shop import prices\n\n\nclass Order:\n    def total(self):\n        return prices.gross(1)\n",
    "shop/lonely.py": "def alone():\n    return 1\n",
    "tests/test_tax.py": "from shop.tax import tax\n",
    "tests/test_prices.py": "import shop.prices\n",
    "tests/test_orders.py": "from shop.orders import Order\n",
    "tests/test_lonely.py": "import shop.lonely\n",
    "data/rates.json": "{}\n",
}


USES = {"tax": "taxed(1)", "prices": "gross(1)", "orders": "Order().total()", "lonely": "alone"}


@pytest.fixture
def shop(write_files) -> Task:
    return Task(
        id="shop",
        repository="shop",
        base=write_files(FILES),
        instruction="",
        fail_to_pass=("tests/test_tax.py::test_tax",),
        pass_to_pass=("tests/test_orders.py::t",),
    )


def change(**edits: tuple[str, str]) -> Patch:
    """A patch that replaces some text of modules of the shop, by their names."""
    paths = {f"shop/{name}.py": edit for name, edit in edits.items()}
    before = {path: FILES[path] for path in paths}
    return Patch.between(before, {path: before[path].replace(*edit) for path, edit in paths.items()})


def test_distance_is_counted_along_imports_of_the_base(shop):
    tests = ["tests/test_tax.py::a", "tests/test_prices.py::b", "tests/test_orders.py::c[1]", "tests/test_lonely.py::d"]
    assert hops_of(shop, ["shop/tax.py"], tests) == [1, 2, 3, None]
    assert hops_of(shop, ["shop/orders.py", "shop/tax.py"], tests) == [1, 2, 1, None]
    assert hops_of(shop, ["tests/test_tax.py"], tests[:1]) == [0]
    assert hops_of(shop, [], tests[:2]) == [None, None]
    assert hops_of(shop, ["data/rates.json"], tests[:1]) == [None]
    assert hops_of(shop, ["shop/tax.py"], []) == []


def test_lines_belong_to_the_innermost_function_around_them(shop):
    found = footprint(shop, change(tax=("price * RATE", "RATE * price"), orders=("gross(1)", "gross(2)")))
    assert found.lines == {("shop/tax.py", "tax"): 2, ("shop/orders.py", "Order.total"): 2}
    assert footprint(shop, change(tax=("RATE = 0.2", "RATE = 0.3"))).lines == {("shop/tax.py", "RATE"): 2}
    text = Patch.between({"data/rates.json": "{}\n"}, {"data/rates.json": "{}\n[]\n"})
    assert list(footprint(shop, text).lines.values()) == [1]
    assert footprint(shop, Patch("")).lines == {}
    assert footprint(shop, Patch("no diff")) is None


def test_lines_are_counted_where_they_are_and_not_where_the_header_says(shop):
    patch = change(tax=("return price\n", "return price - 1\n"))
    shifted = Patch(patch.text.replace("@@ -6,4 +6,4 @@", "@@ -3,4 +3,4 @@"))
    assert shifted != patch
    assert footprint(shop, shifted).lines == footprint(shop, patch).lines == {("shop/tax.py", "net"): 2}


def test_a_test_that_is_edited_is_no_part_of_the_footprint(shop):
    path = "tests/test_tax.py"
    assert footprint(shop, Patch.between({path: FILES[path]}, {path: "pass\n"})).lines == {}


def test_relevance_is_overlap_with_the_reference(shop):
    reference = footprint(shop, change(tax=("price * RATE", "price * RATE / 1")))
    same = relevance(footprint(shop, change(tax=("price * RATE", "RATE"))), reference)
    assert (same.touches_file, same.touches_function, same.off_file, same.off_function) == (True, True, 0.0, 0.0)
    beside = relevance(footprint(shop, change(tax=("return price\n", "return 1\n"))), reference)
    assert (beside.touches_file, beside.touches_function, beside.off_file, beside.off_function) == (True, False, 0, 1)
    wide = footprint(shop, change(tax=("price * RATE", "RATE"), lonely=("return 1", "return 2")))
    assert relevance(wide, reference).off_file == 0.5
    nothing = relevance(footprint(shop, Patch("")), reference)
    assert (nothing.touches_file, nothing.off_file) == (False, None)


def row(task, **changes):
    base = dict.fromkeys(COLUMNS, "") | {
        "policy": "p", "task": task, "repository": "r", "function": task, "temperature": 0.0, "sample": 0, "seed": 0,
        "empty": False, "well_formed": True, "applied": True, "reward": 0.0, "fix": 0, "fail_to_pass": 1, "fixed": 0,
        "guarded": 10, "broken": 0, "newly_skipped": 0, "broke": 0, "clean_fix": 0, "tampering": 0, "tokens": 1,
        "generation_seconds": 0.0, "execution_seconds": 0.0, "changed_lines": 4, "broken_tests": [], "parts": [],
        "broken_hops": [], "broken_places": [], "touches_file": 1, "touches_function": 0, "off_file": 0.0, "off_function": 1.0,
        "lint_added": 0, "lint_removed": 0, "complexity_change": 0, "built": 1, "protected_edits": 0,
    }  # fmt: skip
    return base | changes


def broke(*hops):
    return {"broke": 1, "broken": len(hops), "broken_hops": list(hops)}


def test_breakage_is_reported_by_distance():
    rows = table([row("a", **broke(1, 2)), row("b", **broke(0, None)), row("c", **broke(5, 7)), row("d")])
    found = {name: estimate.value for name, estimate in side.breakage_by_hops(rows).items()}
    assert found == {"0": 0.25, "1": 0.25, "2": 0.25, "3": 0.0, "4 or more": 0.25, "no way": 0.25}
    assert side.broken_tests_by_hops(rows) == {"0": 1, "1": 1, "2": 1, "3": 0, "4 or more": 2, "no way": 1}
    assert side.cross_module_breakage(rows).value == 0.75
    near = table([row("a", **broke(0, 1)), row("b")])
    assert side.cross_module_breakage(near).value == 0.0


def test_a_broken_test_has_its_place_beside_the_change(shop):
    files = {
        "shop/__init__.py": "from shop.tax import tax as taxed\nfrom shop.prices import gross\nfrom shop.orders import Order\n",
        **{f"tests/test_{name}.py": f"import shop\n\n\ndef test_it():\n    shop.{use}\n" for name, use in USES.items()},
    }
    task = replace(shop, base=shop.base.with_files(files))
    tests = [f"tests/test_{name}.py::test_it" for name in USES]
    changed = {("shop/tax.py", "tax")}
    assert places_of(task, changed, tests) == ["own tests", "1 module away", "2 modules away", "farther"]
    shown = replace(task, shown=Shown(tests=("tests/test_prices.py", tests[2])))
    assert places_of(shown, changed, tests) == ["own tests", "shown", "shown", "farther"]
    assert places_of(task, {("tests/test_tax.py", "test_it")}, tests[:1]) == ["own tests"]
    assert places_of(task, changed, []) == places_of(task, (), []) == []


def test_breakage_is_reported_by_place():
    def broke_in(*places):
        return {"broke": 1, "broken": len(places), "broken_places": list(places)}

    rows = table([row("a", **broke_in("shown", "own tests")), row("b", **broke_in("shown")), row("c"), row("d")])
    found = {name: estimate.value for name, estimate in side.breakage_by_place(rows).items()}
    assert found == {"shown": 0.5, "own tests": 0.25, "1 module away": 0, "2 modules away": 0, "farther": 0}
    assert side.broken_tests_by_place(rows)["shown"] == 2
    assert estimate(rows, side.HIDDEN).value == 0.25
    older = {"broke": 1, "broken": 1, "broken_places": None}
    hidden = estimate(table([row("a", **older), row("b", **broke_in("farther")), row("c")]), side.HIDDEN)
    assert (hidden.value, hidden.n) == (0.5, 2)


def test_distances_that_nobody_measured_are_unknown_and_not_0():
    older = {"broke": 1, "broken": 1, "broken_hops": None}
    found = side.cross_module_breakage(table([row("a", **older), row("b", **broke(3)), row("c")]))
    assert (found.value, found.n) == (0.5, 2)
    lost = dict.fromkeys(("fix", "clean_fix", "broke", "broken"))
    found = side.cross_module_breakage(table([row("a", **lost), row("b", **broke(3))]))
    assert (found.value, found.missing, found.worst, found.best) == (1.0, 1, 1.0, 0.5)


def test_relevance_and_collateral_are_of_the_attempts_that_changed_anything():
    nothing = row(
        "d", empty=True, touches_file=None, touches_function=None, off_file=None, off_function=None, built=None
    )
    worse = {"lint_added": 3, "complexity_change": 2, "built": 0, "protected_edits": 1, "tampering": 1}
    rows = table([row("a", touches_function=1, off_function=0.5), row("b", touches_file=0), row("c", **worse), nothing])
    found = {name: each.value for name, each in (side.relevance(rows) | side.collateral(rows)).items()}
    third = pytest.approx(1 / 3)
    assert found == {
        "touches_file": pytest.approx(2 / 3), "touches_function": third, "off_file": 0.0,
        "off_function": pytest.approx(2.5 / 3), "new_lint": third, "lint_added": 1.0,
        "complexity_change": pytest.approx(2 / 3), "build_failed": third, "diff_size": 4.0,
        "protected_edits": third, "tampered": third,
    }  # fmt: skip
    assert all(each.n == 3 for each in side.relevance(rows).values())


def test_rows_of_older_versions_lack_these_columns():
    old = {name: value for name, value in row("a").items() if name in COLUMNS}
    rows = table([old])
    assert rows["touches_file"].isna().all()
    assert all(each.n == 0 for each in side.relevance(rows).values())
