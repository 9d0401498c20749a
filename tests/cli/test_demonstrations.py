"""`regrade tasks demonstrations`: traces from reference patches, executed, in a file that goes on after a kill."""

from __future__ import annotations

import json


def test_traces_are_written_once_and_a_run_goes_on(regrade, tasks, tmp_path):
    out, failed = tmp_path / "traces.jsonl", tmp_path / "failed.jsonl"
    (first, *_) = [json.loads(line) for line in tasks.read_text().splitlines()]
    own = first["reference"].replace("+    return a + b", "+    return 7")
    assert own != first["reference"]
    failed.write_text(json.dumps({"instance_id": first["id"], "model_name_or_path": "m", "model_patch": own}))
    command = ["tasks", "demonstrations", tasks, "--turns", "8", "--failed", failed, "--out", out]
    done = regrade(*command)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    names = [json.loads(line)["id"] for line in tasks.read_text().splitlines()]
    expected = [(name, trace) for name in names for trace in (0, 1, 2)]
    del expected[-2]  # `return +a` cannot be mutated
    assert [(row["task_id"], row["trace"]) for row in rows] == expected
    assert done.out.strip() == f"{out}: {len(rows)} traces, of which {len(names) - 1} err and recover"
    assert "note: 1 trace left out: no wrong edit was found" in done.err
    assert rows[2]["turns"][0]["observation"].endswith("already reads so")
    assert rows[1]["turns"][0] == {"action": "2 return 7", "observation": "ok", "is_learned": False}

    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    assert regrade(*command).code == 0
    assert out.read_bytes() == whole
    assert regrade(*command, "--seed", "1").is_refusal("other settings", "choose another file")
    failed.write_text(failed.read_text().replace(f'"{first["id"]}"', '"unknown"'))
    assert regrade(*command).is_refusal("are none of the 4 tasks")
    assert regrade(*command, "--turns", "1", "--test-runs", "2").is_refusal("--turns")
    assert regrade("tasks", "demonstrations", "--split", "held_out", "--out", out).is_refusal("for the verdict")


def test_a_task_without_a_reference_is_refused(regrade, tasks, tmp_path):
    lines = [json.loads(line) for line in tasks.read_text().splitlines()]
    for line in lines:
        del line["reference"]
    tasks.write_text("\n".join(json.dumps(line) for line in lines))
    out = tmp_path / "traces.jsonl"
    assert regrade("tasks", "demonstrations", tasks, "--out", out).is_refusal("has no reference patch")
    assert not out.exists()
