"""Fetching: from a local index here, with the same pip, digests and unpacking as from the network."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.mutation.packages import (
    PACKAGES,
    TEST_REQUIREMENTS,
    Package,
    fetch,
    fetch_all,
    package,
    subject_files,
)

BACKEND = """
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, settings=None):
    info = Path(folder, "regrade_tiny-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: regrade-tiny\\nVersion: 1.0\\n")
    return info.name

def build_wheel(*arguments):
    raise NotImplementedError
"""
FILES = {
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "backend.py": BACKEND,
    "PKG-INFO": "Metadata-Version: 2.1\nName: regrade-tiny\nVersion: 1.0\n",
    "tiny/__init__.py": "def one():\n    return 1\n",
    "tiny/tests/test_tiny.py": "",
}


def _archive(folder: Path, more: tuple[tarfile.TarInfo, ...] = ()) -> str:
    """Write the source distribution and return its SHA-256."""
    path = folder / "regrade_tiny-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in FILES.items():
            member = tarfile.TarInfo(f"regrade_tiny-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
        for member in more:
            archive.addfile(member, io.BytesIO(b""))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of archives that pip takes for all that there is."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _tiny(digest: str) -> Package:
    return Package(name="regrade-tiny", version="1.0", sha256=digest, subject=("tiny",), paths=("tiny",))


def test_a_package_is_fetched_once(index: Path, tmp_path: Path) -> None:
    tiny = _tiny(_archive(index))
    steps: list[tuple[int, int]] = []
    roots = fetch_all([tiny], tmp_path / "cache", lambda done, total: steps.append((done, total)))
    root = roots["regrade-tiny"]
    assert root == tmp_path / "cache" / "sources" / "regrade-tiny-1.0"
    assert subject_files(tiny, root) == ["tiny/__init__.py"]
    assert steps == [(1, 1)]
    (index / "regrade_tiny-1.0.tar.gz").unlink()
    assert fetch(tiny, tmp_path / "cache") == root
    assert [path.name for path in root.parent.iterdir()] == [root.name]


def test_another_archive_is_refused(index: Path, tmp_path: Path) -> None:
    _archive(index)
    with pytest.raises(UserError, match=r"cannot fetch regrade-tiny==1\.0") as caught:
        fetch(_tiny("0" * 64), tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache" / "sources").iterdir()) == []


@pytest.mark.usefixtures("index")
def test_without_network_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="check the network") as caught:
        fetch_all(PACKAGES[:2], tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_no_member_leaves_the_folder(index: Path, tmp_path: Path) -> None:
    link = tarfile.TarInfo("regrade_tiny-1.0/out")
    link.type, link.linkname = tarfile.SYMTYPE, "../../../../outside"
    with pytest.raises(UserError):
        fetch(_tiny(_archive(index, (link,))), tmp_path / "cache")
    assert list((tmp_path / "cache" / "sources").iterdir()) == []


def test_the_table() -> None:
    assert len(PACKAGES) >= 6
    assert [entry.name for entry in PACKAGES] == sorted(entry.name for entry in PACKAGES)
    assert {entry.group for entry in PACKAGES} == {"training", "held_out"}
    assert all(entry.requirements == TEST_REQUIREMENTS for entry in PACKAGES)
    assert package("toolz").folder == "toolz-1.2.0"
    with pytest.raises(UserError, match="choose from: anytree"):
        package("toolzz")
