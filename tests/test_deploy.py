"""The examples of deployment: manifests of a valid form, and options, files and extras that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml

from regrade.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
OPTIONS = {name for each in typer.main.get_command(app).commands["serve"].params for name in each.opts}  # type: ignore[attr-defined]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: str(manifest["kind"]))
def test_a_manifest_has_the_form_of_kubernetes(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.31", strict=True)


def test_a_wrong_manifest_is_found() -> None:
    wrong = {**MANIFESTS[1], "spec": {**MANIFESTS[1]["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


def test_the_pod_fits_the_image_and_the_command() -> None:
    pod = MANIFESTS[1]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    entry = next(line for line in DOCKERFILE.splitlines() if line.startswith("ENTRYPOINT"))
    words = [*re.findall(r'"([^"]+)"', entry), *container["args"]]
    assert words[:2] == ["regrade", "serve"]
    options = [word for word in words if word.startswith("--")]
    assert set(options) <= OPTIONS
    assert len(options) == len(set(options))
    assert f"EXPOSE {container['ports'][0]['containerPort']}" in DOCKERFILE
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    assert "ENV REGRADE_CACHE=/cache" in DOCKERFILE
    assert mounts["/cache"] == "cache"
    assert any(words[words.index("--token-file") + 1].startswith(f"{path}/") for path in mounts)
    stop = float(words[words.index("--stop-seconds") + 1])
    assert pod["terminationGracePeriodSeconds"] >= stop + 10


def test_the_image_is_made_of_files_and_extras_that_exist() -> None:
    copied = [shlex.split(line)[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY")]
    assert all((ROOT / name).exists() for names in copied for name in names)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {path.split("/")[0] for path in project["tool"]["setuptools"]["package-dir"].values()}
    assert folders <= {name for names in copied for name in names}
    extras = re.search(r"'/src\[([a-z,]+)\]'", DOCKERFILE)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["project"]["optional-dependencies"])


def test_the_job_of_slurm_is_a_script_with_options_that_exist() -> None:
    script = DEPLOY / "server.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    command = script.read_text().split("exec regrade serve")[1]
    assert set(re.findall(r"--[a-z-]+", command)) <= OPTIONS
