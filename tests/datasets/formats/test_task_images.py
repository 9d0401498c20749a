"""Task files with images: which keys they take, and what a wrong one says. No Docker engine is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.formats.task_files import list_task_file, read_task_file

TASK = {"id": "a", "instruction": "i", "fail_to_pass": ["test_a.py::test_a"], "pass_to_pass": []}


def written(folder: Path, image: dict[str, Any], **keys: Any) -> Path:
    (folder / "shop").mkdir(exist_ok=True)
    (folder / "shop" / "test_a.py").write_text("def test_a(): pass\n")
    path = folder / "tasks.json"
    path.write_text(json.dumps({**TASK, "image": image, **keys}))
    return path


def test_a_folder_is_mounted_in_an_image(tmp_path: Path) -> None:
    image = {"name": "shop:1", "workdir": "/testbed/", "command": "run {files} {report}", "reader": "junit"}
    path = written(tmp_path, {**image, "environment": {"B": "2", "A": "1"}}, repository="shop")
    (task,) = read_task_file(path)
    assert task.suite.image is not None
    assert (task.suite.runner, task.suite.image.workdir) == ("junit", "/testbed")
    assert task.suite.image.environment == (("A", "1"), ("B", "2"))
    assert (task.requirements, task.repository) == ((), "shop")
    (other,) = read_task_file(written(tmp_path, {**image, "workdir": "/app"}, repository="shop"))
    assert task.digest != other.digest


def test_a_task_in_an_image_is_listed_without_opening_it(tmp_path: Path) -> None:
    (entry,) = list_task_file(written(tmp_path, {"name": "nowhere:1"}))
    assert (entry.id, entry.repository, entry.fail_to_pass) == ("a", "nowhere:1", 1)


@pytest.mark.parametrize(
    ("image", "keys", "message"),
    [
        ({}, {}, "name"),
        ({"name": "a", "reader": "maven"}, {}, "'reader' is \"maven\": choose one of pytest, unittest, junit"),
        ({"name": "a", "reader": "go"}, {}, "the reader 'go' needs 'command'"),
        ({"name": "a", "reader": "junit", "command": "run"}, {}, "must pass its path, {report}"),
        ({"name": "a", "workdir": "testbed"}, {}, "set the absolute path of the repository in the image"),
        ({"name": "a", "workdir": "/usr/../tmp"}, {}, "set the absolute path of the repository in the image"),
        ({"name": "a", "environment": {"A=B": "c"}}, {}, "which is no name of a variable"),
        ({"name": "a"}, {"requirements": ["pytest==9.2.0"]}, "leave the key 'requirements' out"),
        ({"name": "a", "network": True}, {}, "network"),
    ],
)
def test_a_wrong_image_is_one_clear_error(
    image: dict[str, Any], keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path, image, repository="shop", **keys)
    with pytest.raises(UserError) as caught:
        read_task_file(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
