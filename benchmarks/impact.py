"""Is `impact` any good: how well it predicts which test files a change breaks, and how the graph compares with grimp.

1. Prediction. Each ready-made task is a change of which it is known by execution which tests it breaks: planting the
   bug in the pristine package. Each test file of the package is scored by the way to it from the changed symbols, and
   the area under the ROC curve (AUC) says how often a broken file is put before one that is not. Ablations take one
   ingredient away.
2. The graph. Modules and imports of real packages as regrade and grimp (https://grimp.readthedocs.io) see them.
3. Speed. The graph of networkx, cold and after a patch, beside grimp's.

    python benchmarks/impact.py                 # about a minute; grimp's part needs `pip install grimp`
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from _latest import record
from _networkx import networkx
from scipy.stats import mannwhitneyu

from regrade.datasets.mutation.packages import PACKAGES, fetch
from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.static.dependencies import facts as facts_module
from regrade.evaluators.static.dependencies import graph as graph_module
from regrade.evaluators.static.dependencies import impact
from regrade.evaluators.static.dependencies.changes import changed_symbols
from regrade.evaluators.static.dependencies.graph import Graph, Symbol, graph_of
from regrade.evaluators.static.dependencies.reach import HOPS, Explorer
from regrade.evaluators.static.languages import language_of

Predictor = Callable[[Graph, Mapping[Symbol, float]], Mapping[str, float]]
"""(graph, changed symbol -> weight) -> score of each file that the change reaches"""
COMPARED = ("boltons", "more-itertools", "toolz", "pydash", "networkx")


def by_reach(*, weighed: bool = True, fading: float = 0.5, doubts: bool = True) -> Predictor:
    """As `impact` does it, or with an ingredient taken away."""

    def predict(graph: Graph, changed: Mapping[Symbol, float]) -> Mapping[str, float]:
        start = changed if weighed else dict.fromkeys(changed, 1.0)
        best: dict[str, float] = defaultdict(float)
        for symbol, step in Explorer(graph, decay=fading, uses_confidence=doubts).reach(start).items():
            best[symbol[0]] = max(best[symbol[0]], step.score)
        return best

    return predict


def by_imports(hops: int) -> Predictor:
    """By the graph of imports between files alone."""

    def predict(graph: Graph, changed: Mapping[Symbol, float]) -> Mapping[str, float]:
        found = dict.fromkeys((path for path, _ in changed), 0)
        waiting = list(found)
        for path in waiting:
            for user in graph.importers(path) if found[path] < hops else ():
                if user not in found:
                    found[user] = found[path] + 1
                    waiting.append(user)
        return {path: 0.5 ** max(0, far - 1) for path, far in found.items()}

    return predict


PREDICTORS: Mapping[str, Predictor] = {
    "impact": by_reach(),
    "without weights of the change": by_reach(weighed=False),
    "without fading": by_reach(fading=1.0),
    "without confidences": by_reach(doubts=False),
    "reached or not": lambda graph, changed: dict.fromkeys(by_reach()(graph, changed), 1.0),
    f"imports between files, {HOPS} hops": by_imports(HOPS),
    "imports between files, any hops": by_imports(10_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2000, help="at most so many ready-made tasks")
    chosen = parser.parse_args()
    figures = {"prediction": prediction(load_tasks()[: chosen.tasks])}
    if importlib.util.find_spec("grimp") is None:
        print("\ngrimp is not installed: the graph is not compared (pip install grimp)")
    else:
        with tempfile.TemporaryDirectory(prefix="regrade-bench-") as folder:
            roots = {name: fetched(name, Path(folder)) for name in COMPARED}
            figures["graph"] = {name: compared(name.replace("-", "_"), root) for name, root in roots.items()}
            figures["speed"] = speed(roots["networkx"])
    record("impact", figures)


# ---------------------------------------------------------------- prediction


def prediction(tasks: Iterable[Task]) -> dict[str, float]:
    """Mean over the changes of the AUC within each, for every predictor."""
    found: dict[str, list[float]] = {name: [] for name in PREDICTORS}
    packages: dict[str, list[float]] = defaultdict(list)
    left_out = 0
    for task in tasks:
        files = sorted({file_of(test) for test in task.fail_to_pass + task.pass_to_pass})
        broken = {file_of(test) for test in task.fail_to_pass}
        if not 0 < len(broken) < len(files):
            left_out += 1
            continue
        pristine = Tree(task.base.root, known=task.base.known)
        graph = graph_of(pristine, task.suite.python_path)
        changed = changes(pristine, task)
        for name, predict in PREDICTORS.items():
            scores = predict(graph, changed)
            found[name].append(auc([(scores.get(file, 0.0), file in broken) for file in files]))
        packages[task.repository].append(found["impact"][-1])
    count = len(found["impact"])
    print(f"{count} executed changes in {len(packages)} packages (left out: {left_out} that break every file)")
    print(f"{'which test files break, predicted by':40} {'AUC':>6} {'± s.e.':>7}")
    for name, values in found.items():
        print(f"{name:40} {statistics.mean(values):6.3f} {statistics.stdev(values) / math.sqrt(count):7.3f}")
    each = ", ".join(f"{name} {statistics.mean(values):.3f}" for name, values in sorted(packages.items()))
    print(f"impact by package: {each}")
    return {"changes": count, **{name: round(statistics.mean(values), 4) for name, values in found.items()}}


def changes(pristine: Tree, task: Task) -> dict[Symbol, float]:
    """The symbols that planting the task's bug changes."""
    found: dict[Symbol, float] = {}
    for path in task.base.replaced:
        language = language_of(path)
        assert language is not None
        weights = changed_symbols(pristine.read(path), task.base.read(path), language)
        found.update({(path, name): weight for name, weight in weights.items()})
    return found


def auc(scores: list[tuple[float, bool]]) -> float:
    """The area under the ROC curve: the Mann-Whitney statistic over the number of pairs, ties counted half."""
    broken = [score for score, is_broken in scores if is_broken]
    sound = [score for score, is_broken in scores if not is_broken]
    return float(mannwhitneyu(broken, sound, method="asymptotic").statistic) / (len(broken) * len(sound))


# ---------------------------------------------------------------- the graph beside grimp


def fetched(name: str, folder: Path) -> Path:
    """The unpacked source distribution."""
    package = next((package for package in PACKAGES if package.name == name), None)
    return networkx(folder) if package is None else fetch(package)


def compared(package: str, root: Path) -> dict[str, float]:
    """Precision and recall of the imports between modules, grimp's taken for the truth, and what differs."""
    source = root / "src" if (root / "src" / package).is_dir() else root
    ours, theirs = our_imports(package, source), grimp_imports(package, source)
    shared = ours & theirs
    precision, recall = len(shared) / len(ours), len(shared) / len(theirs)
    print(f"\n{package}: {len(theirs)} imports by grimp, {len(ours)} by regrade; ", end="")
    print(f"precision {precision:.3f}, recall {recall:.3f}")
    for what, pairs in (("only regrade", ours - theirs), ("only grimp", theirs - ours)):
        for user, used in sorted(pairs)[:3]:
            print(f"  {what}: {user} -> {used}")
    return {"precision": round(precision, 4), "recall": round(recall, 4), "imports": len(theirs)}


def our_imports(package: str, source: Path) -> set[tuple[str, str]]:
    graph = graph_of(Tree(source), (".",))
    dotted = graph.modules.dotted
    names = {path: name for path, name in dotted.items() if name == package or name.startswith(f"{package}.")}
    return {(name, names[used]) for path, name in names.items() for used in graph.links(path).imports if used in names}


def grimp_imports(package: str, source: Path) -> set[tuple[str, str]]:
    import grimp

    sys.path.insert(0, str(source))
    try:
        graph = grimp.build_graph(package, cache_dir=None)
    finally:
        sys.path.remove(str(source))
    return {(user, used) for user in graph.modules for used in graph.find_modules_directly_imported_by(user)}


# ---------------------------------------------------------------- speed


def speed(root: Path) -> dict[str, float]:
    """Seconds: the impact of each patch of networkx from nothing, then of one after another, the graph, and grimp's."""
    tree = Tree(root)
    files = [path for path in tree.paths() if path.endswith(".py")]
    patched = list(edits(tree, [path for path in files if path.startswith("networkx/algorithms/")]))
    task = Task(id="bench", repository="networkx", base=tree, instruction="", fail_to_pass=(), pass_to_pass=())
    walls = []
    for after, patch in patched:
        forget()
        walls.append(timed(partial(impact.probe, tree, after, patch, task)))
    forget()
    again = [timed(partial(impact.probe, tree, after, patch, task)) for after, patch in patched][1:]
    forget()
    graph = graph_of(tree, (".",))
    whole = timed(lambda: [graph.links(path) for path in graph.texts])
    theirs = timed(lambda: grimp_imports("networkx", root))
    print(f"\nnetworkx, {len(files)} files, {len(walls)} patches; seconds                median   largest")
    print(f"impact of a patch, with nothing read before           {statistics.median(walls):8.3f}  {max(walls):8.3f}")
    print(f"impact of a further patch                             {statistics.median(again):8.3f}  {max(again):8.3f}")
    print(f"every file read (imports, names, attributes)          {whole:8.3f}")
    print(f"grimp's graph (imports), before and after each patch  {theirs:8.3f}")
    figures = {
        "cold_patch": statistics.median(walls),
        "cold_patch_largest": max(walls),
        "further_patch": statistics.median(again),
        "further_patch_largest": max(again),
        "whole_graph": whole,
        "grimp": theirs,
    }
    return {"files": len(files), **{name: round(wall, 4) for name, wall in figures.items()}}


def edits(tree: Tree, paths: list[str], count: int = 21) -> Iterator[tuple[Tree, Patch]]:
    """Patches of one function body each, evenly over the files."""
    fitting = [path for path in paths if "\n    return " in tree.read(path) and "test" not in path]
    for path in fitting[:: max(1, len(fitting) // count)][:count]:
        old = tree.read(path)
        new = old.replace("\n    return ", "\n    _ = 0\n    return ", 1)
        yield tree.with_files({path: new}), Patch.between({path: old}, {path: new})


def forget() -> None:
    """Empty the caches of what was read."""
    facts_module.facts.cache_clear()
    graph_module._links.cache_clear()
    graph_module._graph.cache_clear()


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
