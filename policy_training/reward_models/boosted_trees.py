"""Gradient-boosted trees as plain numbers: fitted by scikit-learn, stored as JSON, evaluated by numpy alone.

A stored model can neither run code when it is read nor depend on the version of scikit-learn, which only training
needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regrade.datasets.errors import UserError

Floats = NDArray[np.float64]
INSTALL_STATIC = "run pip install '.[static]' in the checkout of regrade"
ITERATIONS = 150
"""Trees of a model."""
MOST_NODES = 100_000
"""Of a tree that is read."""


@dataclass(frozen=True)
class RegressionTree:
    """One tree. All arrays have one entry a node; node 0 is the root, and a child follows its parent."""

    feature: NDArray[np.int64]
    """Number of the feature that a node splits by; -1: a leaf."""
    threshold: Floats
    """A value of at most this goes left."""
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    """Does an unknown value (NaN) go left?"""
    value: Floats
    """Of a leaf: what it adds to the logit."""

    def logits(self, features: Floats) -> Floats:
        """(examples,), of features, (examples, features)."""
        nodes = np.zeros(len(features), dtype=np.int64)
        while True:
            rows = np.flatnonzero(self.feature[nodes] >= 0)
            if not len(rows):
                return self.value[nodes]
            at = nodes[rows]
            values = features[rows, self.feature[at]]
            is_left = np.where(np.isnan(values), self.missing_left[at], values <= self.threshold[at])
            nodes[rows] = np.where(is_left, self.left[at], self.right[at])


@dataclass(frozen=True)
class BoostedTrees:
    """The sum of trees: the logit of a binary outcome."""

    baseline: float
    trees: tuple[RegressionTree, ...]

    def logits(self, features: Floats) -> Floats:
        """(examples,), of features, (examples, features)."""
        total = np.full(len(features), self.baseline)
        for tree in self.trees:
            total += tree.logits(features)
        return total

    def to_json(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline,
            "trees": [
                {
                    "feature": tree.feature.tolist(),
                    "threshold": [float(number) if np.isfinite(number) else 1e308 for number in tree.threshold],
                    "left": tree.left.tolist(),
                    "right": tree.right.tolist(),
                    "missing_left": tree.missing_left.astype(int).tolist(),
                    "value": tree.value.tolist(),
                }
                for tree in self.trees
            ],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], width: int) -> BoostedTrees:
        """
        Args:
            width: number of features.

        Raises:
            ValueError, KeyError, TypeError: it is no sum of trees over so many features.
        """
        return cls(float(values["baseline"]), tuple(_tree(tree, width) for tree in values["trees"]))


def _tree(values: Mapping[str, Any], width: int) -> RegressionTree:
    tree = RegressionTree(
        feature=np.array(values["feature"], dtype=np.int64),
        threshold=np.array(values["threshold"], dtype=np.float64),
        left=np.array(values["left"], dtype=np.int64),
        right=np.array(values["right"], dtype=np.int64),
        missing_left=np.array(values["missing_left"], dtype=np.int64).astype(bool),
        value=np.array(values["value"], dtype=np.float64),
    )
    count = len(tree.feature)
    arrays = (tree.feature, tree.threshold, tree.left, tree.right, tree.missing_left, tree.value)
    if not 0 < count <= MOST_NODES or any(array.shape != (count,) for array in arrays):
        raise ValueError("a tree has another number of values than of nodes")
    inner = np.flatnonzero(tree.feature >= 0)
    for child in (tree.left[inner], tree.right[inner]):
        # A child after its parent, so that no walk through the tree is endless.
        if np.any(child <= inner) or np.any(child >= count):
            raise ValueError("a node of a tree has a child outside of the tree, or before itself")
    if np.any(tree.feature >= width) or not np.all(np.isfinite(tree.value)) or np.any(np.isnan(tree.threshold)):
        raise ValueError("a node of a tree has an unknown feature, or a value that is no number")
    return tree


def fit(features: Floats, outcomes: Floats, *, seed: int, iterations: int = ITERATIONS) -> BoostedTrees:
    """Fit by scikit-learn's HistGradientBoostingClassifier.

    Args:
        features: (examples, features); NaN: unknown.
        outcomes: 0 or 1, (examples,), both of them present.
        iterations: number of trees.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError as error:
        raise UserError(
            f"a static reward model is trained by scikit-learn, which is missing: {INSTALL_STATIC}"
        ) from error
    classifier = HistGradientBoostingClassifier(
        learning_rate=0.08,
        max_iter=iterations,
        max_leaf_nodes=15,
        min_samples_leaf=min(20, max(2, len(outcomes) // 20)),
        l2_regularization=1.0,
        max_features=0.5,
        early_stopping=False,
        random_state=seed,
    )
    # scikit-learn cannot bin a feature of which no value is known; without any other value, no tree splits by it.
    known = np.where(np.isnan(features).all(axis=0), 0.0, features)
    with threadpool_limits(limits=1):  # its threads spin, and on busy cores that takes many times longer
        classifier.fit(known, outcomes.astype(int))
    baseline = float(np.ravel(classifier._baseline_prediction)[0])
    return BoostedTrees(baseline, tuple(_of_nodes(trees[0].nodes) for trees in classifier._predictors))


def _of_nodes(nodes: Any) -> RegressionTree:
    is_leaf = nodes["is_leaf"].astype(bool)
    return RegressionTree(
        feature=np.where(is_leaf, -1, nodes["feature_idx"]).astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        value=np.where(is_leaf, nodes["value"], 0.0).astype(np.float64),
    )
