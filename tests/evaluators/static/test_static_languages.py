"""The dependency graph beyond Python: the same checks for every language, on a small repository each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.evaluators.static.dependencies import impact
from regrade.evaluators.static.dependencies.changes import BODY, REMOVED, SIGNATURE, changed_symbols
from regrade.evaluators.static.dependencies.facts import facts
from regrade.evaluators.static.languages import LANGUAGES, Language, language_of
from regrade.rewards import Impact, ImpactedModule

Make = Callable[..., Any]


@dataclass(frozen=True)
class Example:
    """A repository of one language. The other files use its first file, directly or not."""

    files: dict[str, str]
    body: tuple[str, str]
    """(old, new) text in the first file, so that only a body changes."""
    signature: tuple[str, str]
    removal: tuple[str, str]
    comment: tuple[str, str]
    users: dict[str, int]
    """Reached file -> hops."""
    tests: dict[str, tuple[str, ...]]
    """Reached file -> test files that reach it."""
    dangling: str
    """The file that uses the removed name."""


EXAMPLES = {
    "JavaScript": Example(
        files={
            "src/math.js": "// Sums.\nexport function add(a, b) {\n  return a + b;\n}\n\nexport const zero = 0;\n",
            "src/shop.js": "import { add } from './math.js';\n\nexport function total(xs) {\n  return xs.reduce(add, 0);\n}\n",
            "src/index.js": "export { total as sum } from './shop.js';\n",
            "src/old.js": "const math = require('./math');\nmodule.exports = { twice: (a) => math.add(a, a) };\n",
            "src/alone.js": "import fs from 'fs';\nexport const read = (path) => fs.readFileSync(path);\n",
            "app.js": "import { sum } from './src';\nexport function main() { return sum([1, 2]); }\n",
            "tests/shop.test.js": "import { total } from '../src/shop.js';\ntest('total', () => total([1]));\n",
        },
        body=("a + b", "b + a"),
        signature=("add(a, b)", "add(a, b, c)"),
        removal=("export function add(a, b) {\n  return a + b;\n}\n", ""),
        comment=("// Sums.", "// Adds."),
        users={"src/shop.js": 1, "src/old.js": 1, "src/index.js": 2, "app.js": 2},
        tests={"src/shop.js": ("tests/shop.test.js",), "src/old.js": (), "app.js": ()},
        dangling="src/shop.js",
    ),
    "TypeScript": Example(
        files={
            "src/model.ts": "// A box.\nexport interface Box { size: number }\nexport function grow(box: Box): Box {\n  return { size: box.size + 1 };\n}\n",
            "src/use.ts": "import * as model from './model';\nexport class Shop {\n  open(b: model.Box) { return model.grow(b); }\n}\n",
            "src/page.tsx": "import { Shop } from './use';\nexport const Page = () => <p>{new Shop().open({ size: 1 }).size}</p>;\n",
            "src/model.spec.ts": "import { grow } from './model';\nit('grows', () => grow({ size: 1 }));\n",
            "src/types.ts": "import type { Box } from './model';\nexport type Boxes = Box[];\n",
        },
        body=("box.size + 1", "box.size + 2"),
        signature=("grow(box: Box): Box", "grow(box: Box, by: number): Box"),
        removal=("export function grow(box: Box): Box {\n  return { size: box.size + 1 };\n}\n", ""),
        comment=("// A box.", "// Boxes."),
        users={"src/use.ts": 1, "src/page.tsx": 2},
        tests={"src/use.ts": (), "src/page.tsx": ()},
        dangling="src/use.ts",
    ),
    "Go": Example(
        files={
            "util/math.go": "package util\n\n// Add adds.\nfunc Add(a, b int) int {\n\treturn a + b\n}\n",
            "util/more.go": "package util\n\nfunc Twice(a int) int { return Add(a, a) }\n",
            "shop/shop.go": 'package shop\n\nimport u "example.com/m/util"\n\ntype Cart struct{ items []int }\n\nfunc (c *Cart) Total() int {\n\treturn u.Add(c.items[0], 1)\n}\n',
            "main.go": 'package main\n\nimport "example.com/m/shop"\n\nfunc main() { c := shop.Cart{}; println(c.Total()) }\n',
            "other/other.go": 'package other\n\nimport "fmt"\n\nfunc Add() { fmt.Println() }\n',
            "util/math_test.go": "package util\n\nfunc TestAdd(t *testing.T) { Add(1, 2) }\n",
            "go.mod": "module example.com/m\n\ngo 1.21\n",
        },
        body=("a + b", "b + a"),
        signature=("Add(a, b int)", "Add(a, b, c int)"),
        removal=("func Add(a, b int) int {\n\treturn a + b\n}\n", ""),
        comment=("// Add adds.", "// Add sums."),
        users={"util/more.go": 1, "shop/shop.go": 1, "main.go": 2},
        tests={"util/more.go": (), "shop/shop.go": (), "main.go": ()},
        dangling="shop/shop.go",
    ),
    "Rust": Example(
        files={
            "src/math.rs": "// Sums.\npub fn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n\npub const ZERO: i32 = 0;\n",
            "src/lib.rs": "pub mod math;\npub mod shop;\n",
            "src/shop.rs": "use crate::math::add;\n\npub struct Cart { items: Vec<i32> }\n\nimpl Cart {\n    pub fn total(&self) -> i32 {\n        add(self.items[0], 1)\n    }\n}\n",
            "src/twice.rs": "use super::math;\n\npub fn twice(a: i32) -> i32 { math::add(a, a) }\n",
            "src/bin/run.rs": "use my_shop::shop::Cart;\n\nfn main() { let c = Cart { items: vec![] }; c.total(); }\n",
            "src/alone.rs": "use std::fmt;\n\npub fn alone() {}\n",
            "tests/test_shop.rs": "use my_shop::shop::Cart;\n\n#[test]\nfn total() { assert_eq!(Cart { items: vec![1] }.total(), 2); }\n",
            "tests/whole.rs": "#[test]\nfn doubles() { assert_eq!(my_shop::twice::twice(1), 2); }\n",
            "Cargo.toml": '[package]\nname = "my-shop"\nversion = "0.1.0"\n',
        },
        body=("a + b", "b + a"),
        signature=("add(a: i32, b: i32)", "add(a: i64, b: i32)"),
        removal=("pub fn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n", ""),
        comment=("// Sums.", "// Adds."),
        users={"src/shop.rs": 1, "src/twice.rs": 1, "src/bin/run.rs": 2},
        tests={"src/shop.rs": ("tests/test_shop.rs",), "src/twice.rs": ("tests/whole.rs",), "src/bin/run.rs": ()},
        dangling="src/shop.rs",
    ),
    "Java": Example(
        files={
            "src/main/java/com/x/Sums.java": "package com.x;\n\n// Sums.\npublic class Sums {\n  public static int add(int a, int b) { return a + b; }\n}\n",
            "src/main/java/com/x/Near.java": "package com.x;\n\nclass Near {\n  int twice(int a) { return Sums.add(a, a); }\n}\n",
            "src/main/java/com/y/Shop.java": "package com.y;\n\nimport com.x.Sums;\n\npublic class Shop {\n  public int total(int[] xs) { return Sums.add(xs[0], 1); }\n}\n",
            "src/main/java/com/z/App.java": "package com.z;\n\nimport com.y.*;\n\nclass App {\n  void run() { new Shop().total(null); }\n}\n",
            "src/main/java/com/z/Alone.java": "package com.z;\n\nclass Alone {}\n",
            "src/test/java/com/y/ShopTest.java": "package com.y;\n\nclass ShopTest {\n  void total() { new Shop().total(null); }\n}\n",
        },
        body=("a + b", "b + a"),
        signature=("add(int a, int b)", "add(long a, int b)"),
        removal=("public class Sums", "public class Totals"),
        comment=("// Sums.", "// Adds."),
        users={
            "src/main/java/com/x/Near.java": 1,
            "src/main/java/com/y/Shop.java": 1,
            "src/main/java/com/z/App.java": 2,
        },
        tests={
            "src/main/java/com/x/Near.java": (),
            "src/main/java/com/y/Shop.java": ("src/test/java/com/y/ShopTest.java",),
            "src/main/java/com/z/App.java": (),
        },
        dangling="src/main/java/com/y/Shop.java",
    ),
}
each_language = pytest.mark.parametrize("name", EXAMPLES)


def after(patched: Make, example: Example, change: tuple[str, str]) -> Impact:
    first = next(iter(example.files))
    assert change[0] in example.files[first]
    evidence: Impact = patched(example.files, {first: example.files[first].replace(*change, 1)}).probe(impact)
    return evidence


def reached(evidence: Impact) -> dict[str, ImpactedModule]:
    return {module.module: module for module in evidence.modules}


def test_every_language_but_python_has_an_example() -> None:
    assert {*EXAMPLES, "Python", "TSX"} == {language.name for language in LANGUAGES}


@each_language
def test_every_file_of_the_examples_parses(name: str) -> None:
    for path, text in EXAMPLES[name].files.items():
        language = language_of(path)
        assert language is None or facts(text, language).is_sound, path


@each_language
def test_a_change_reaches_its_users_and_no_others(patched: Make, name: str) -> None:
    example = EXAMPLES[name]
    evidence = after(patched, example, example.body)
    assert {path: module.hops for path, module in reached(evidence).items()} == example.users


@each_language
def test_reached_modules_name_their_tests(patched: Make, name: str) -> None:
    example = EXAMPLES[name]
    modules = reached(after(patched, example, example.body))
    for path, tests in example.tests.items():
        assert set(tests) <= set(modules[path].tests), path


@each_language
def test_a_signature_weighs_more_than_a_body_and_a_comment_nothing(patched: Make, name: str) -> None:
    example = EXAMPLES[name]
    weights = {}
    for kind in ("body", "signature", "comment"):
        modules = reached(after(patched, example, getattr(example, kind)))
        weights[kind] = max((module.weight for module in modules.values()), default=0.0)
    assert weights == {"body": BODY, "signature": SIGNATURE, "comment": 0.0}


@each_language
def test_a_removed_name_dangles(patched: Make, name: str) -> None:
    example = EXAMPLES[name]
    module = reached(after(patched, example, example.removal))[example.dangling]
    assert module.weight == REMOVED
    assert module.dangling


@each_language
def test_unparsable_files_are_named(patched: Make, name: str) -> None:
    example = EXAMPLES[name]
    first = next(iter(example.files))
    evidence = patched(example.files, {first: example.files[first] + "\n}}} ((("}).probe(impact)
    assert evidence.unparsable == (first,)


def test_common_js_modules_that_are_one_function(patched: Make) -> None:
    files = {
        "add.js": "function add(a, b) { return a + b; }\nmodule.exports = add;\n",
        "use.js": "const plus = require('./add');\nexports.run = () => plus(1, 2);\n",
        "lib/index.js": "exports.inner = function () { return 1; };\n",
        "far.js": "const { inner: deep } = require('./lib');\nfunction go() { return deep(); }\n",
    }
    changed = patched(files, {"add.js": files["add.js"].replace("a + b", "b + a")}).probe(impact)
    assert set(reached(changed)) == {"use.js"}
    changed = patched(files, {"lib/index.js": files["lib/index.js"].replace("1", "2")}).probe(impact)
    assert set(reached(changed)) == {"far.js"}


def test_default_exports_and_dynamic_imports(patched: Make) -> None:
    files = {
        "a.mjs": "export default function first() { return 1; }\n",
        "b.mjs": "import anything from './a.mjs';\nexport const b = () => anything();\n",
        "c.mjs": "export async function c() { const a = await import('./a.mjs'); return a.default(); }\n",
    }
    modules = reached(patched(files, {"a.mjs": files["a.mjs"].replace("1", "2")}).probe(impact))
    assert "b.mjs" in modules


def test_moving_a_function_within_a_go_package_leaves_nothing_dangling(patched: Make) -> None:
    files = EXAMPLES["Go"].files
    moved = "\n\nfunc Add(a, b int) int {\n\treturn a + b\n}\n"
    changes = {"util/math.go": "package util\n", "util/more.go": files["util/more.go"] + moved}
    assert all(not module.dangling for module in patched(files, changes).probe(impact).modules)


def test_languages_side_by_side_do_not_mix(patched: Make) -> None:
    files = {
        "util.py": "def add(a, b):\n    return a + b\n",
        "util.js": "export function add(a, b) { return a + b; }\n",
        "use.py": "import util\n\n\ndef use():\n    return util.add(1, 2)\n",
        "use.js": "import { add } from './util.js';\nexport const use = () => add(1, 2);\n",
    }
    evidence = patched(files, {"util.js": files["util.js"].replace("a + b", "b + a")}).probe(impact)
    assert set(reached(evidence)) == {"use.js"}
    evidence = patched(files, {"util.py": files["util.py"].replace("a + b", "b + a")}).probe(impact)
    assert set(reached(evidence)) == {"use.py"}


def first_file(name: str) -> tuple[str, str]:
    return next(iter(EXAMPLES[name].files.items()))


@given(
    st.sampled_from(LANGUAGES),
    st.text(max_size=120) | st.binary(max_size=120).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)
def test_any_text_has_facts(language: Language, text: str) -> None:
    file_facts = facts(text, language)
    assert set(file_facts.names) <= {*file_facts.texts, "<module>"}


@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_any_edit_has_weights_and_none_has_none(name: str, data: st.DataObject) -> None:
    path, before = first_file(name)
    language = language_of(path)
    assert language is not None
    start = data.draw(st.integers(0, len(before)))
    end = data.draw(st.integers(start, min(len(before), start + 30)))
    after = before[:start] + data.draw(st.text(max_size=12)) + before[end:]
    weights = changed_symbols(before, after, language)
    assert set(weights.values()) <= {BODY, SIGNATURE, REMOVED}
    assert weights.keys() <= facts(before, language).texts.keys()
    assert changed_symbols(before, before, language) == {}
