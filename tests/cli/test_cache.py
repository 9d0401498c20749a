"""`regrade cache`: show, prune and clear."""

from __future__ import annotations

import json


def test_show_prune_and_clear(regrade, repo, fix, monkeypatch, tmp_path):
    monkeypatch.setenv("REGRADE_CACHE", str(tmp_path / "own"))
    assert regrade("cache").code == 0
    assert regrade("cache", "prune", "--to", "1").is_refusal("has no evidence")
    assert regrade("score", fix, "--repo", repo).code == 0
    shown = json.loads(regrade("cache", "--json").out)
    kinds = {entry["kind"]: entry["records"] for entry in shown["evidence"]}
    assert kinds["TestRun"] == 1
    assert shown["megabytes"]["evidence"] > 0
    assert "TestRun" in regrade("cache").out
    pruned = regrade("cache", "prune", "--to", "0")
    assert f"{sum(kinds.values())} records evicted, 0 left" in pruned.out
    assert json.loads(regrade("cache", "--json").out)["evidence"] == []
    assert regrade("cache", "clear", "evidnce").is_refusal("evidnce", "evidence")
    assert regrade("cache", "clear", "all").code == 0
    assert sum(json.loads(regrade("cache", "--json").out)["megabytes"].values()) == 0
