"""Opening repositories: folders, clones, archives, and what is refused; nothing of a later commit is exported."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.formats.checkouts import Checkout, Clones
from regrade.datasets.mining.repositories import open_repository


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "cart.py").write_text("TOTAL = 1\n")
    (folder / "run.sh").write_text("true\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link.py").symlink_to("cart.py")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "First\n\nwith a body")
    (folder / "cart.py").write_text("TOTAL = 2\n")
    (folder / "data.bin").write_bytes(b"\0\1")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "Second")
    (folder / "secret.log").write_text("ignored\n")
    (folder / "new.py").write_text("not committed\n")
    return folder


def test_a_folder_is_its_working_tree_with_its_history(shop: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    opened = open_repository(str(shop), tmp_path / "cache", notes.append)
    assert opened.tree.paths() == [".gitignore", "cart.py", "data.bin", "new.py", "run.sh"]
    assert notes == ["link.py is a link, and left out"]
    assert opened.version == git(shop, "rev-parse", "HEAD")[:12]
    assert opened.history is not None
    (commit,) = opened.history.commits(10)
    assert (commit.subject, commit.sha) == ("Second", git(shop, "rev-parse", "HEAD").strip())
    changes = opened.history.changes(commit)
    assert [(each.path, each.before is None, each.is_plain) for each in changes] == [
        ("cart.py", False, True),
        ("data.bin", True, True),
    ]
    assert [opened.history.read(each.after or "") for each in changes] == ["TOTAL = 2\n", None]
    opened.history.export(commit.parent, tmp_path / "parent")
    names = {path.name for path in (tmp_path / "parent").rglob("*")}
    assert names == {".gitignore", "cart.py", "run.sh", "link.py"}
    assert (tmp_path / "parent" / "cart.py").read_text() == "TOTAL = 1\n"
    (shop / "cart.py").write_text("TOTAL = 3\n")  # the copy does not follow
    assert opened.tree.read("cart.py") == "TOTAL = 2\n"
    assert open_repository(str(shop), tmp_path / "cache").root != opened.root


def test_a_bare_clone_and_a_url_are_their_newest_commit(shop: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(shop), "bare.git")
    for source in (str(tmp_path / "bare.git"), f"file://{shop}"):
        opened = open_repository(source, tmp_path / "cache")
        assert opened.tree.paths() == [".gitignore", "cart.py", "data.bin", "run.sh"]
        assert opened.name in ("bare", "shop")
        assert opened.history is not None


def test_archives(shop: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shop-1.2.tar.gz", "w:gz") as archive:
        archive.add(shop / "cart.py", "shop-1.2/cart.py")
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as zipped:
        zipped.write(shop / "cart.py", "shop-main/cart.py")
    for name, expected in (("shop-1.2.tar.gz", "shop"), ("shop.zip", "shop-main")):
        opened = open_repository(str(tmp_path / name), tmp_path / "cache")
        assert (opened.name, opened.tree.paths(), opened.history) == (expected, ["cart.py"], None)


def test_files_of_a_build_are_added_to_another_copy(shop: Path, tmp_path: Path) -> None:
    opened = open_repository(str(shop), tmp_path / "cache")
    larger = opened.with_files({"cart.py": b"other", "made/version.py": b"1"}, tmp_path / "cache")
    assert larger.tree.read("cart.py") == opened.tree.read("cart.py")
    assert larger.tree.read("made/version.py") == "1"
    assert "made/version.py" not in opened.tree.paths()
    assert larger.with_files({"cart.py": b"other"}, tmp_path / "cache") == larger


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{}/nowhere", "no repository .*nowhere': pass an existing folder or archive, a git URL, or a package"),
        ("{}/empty", "empty contains no file"),
        ("{}/text.txt", "is a file, and no archive"),
        ("{}/half.tar.gz", "cannot unpack half.tar.gz"),
        ("{}/half.zip", "cannot unpack half.zip"),
        ("{}/leaving.zip", "contains a path that leaves its folder"),
        ("file://{}/nowhere", "cannot be cloned"),
        ("file://{}/fresh", "has no commit"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "fresh").mkdir()
    git(tmp_path / "fresh", "init", "--quiet")
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "half.tar.gz").write_bytes(b"\x1f\x8b\x08half")
    (tmp_path / "half.zip").write_bytes(b"PKhalf")
    with zipfile.ZipFile(tmp_path / "leaving.zip", "w") as zipped:
        zipped.writestr("../out.py", "")
    with pytest.raises(UserError, match=message):
        open_repository(source.format(tmp_path), tmp_path / "cache")
    cache = tmp_path / "cache"
    assert not cache.exists() or [path for path in cache.rglob("*") if path.is_file()] == []


def test_what_npm_packed_has_the_name_of_its_manifest(tmp_path: Path) -> None:
    packed = tmp_path / "packed" / "package"
    (packed / "lib").mkdir(parents=True)
    (packed / "lib" / "cart.js").write_text("")
    for manifest, name, version in (
        ('{"name": "@team/shop", "version": "1.2.0"}', "team-shop", "1.2.0"),
        ('{"name": 1}', "package", ""),
        ("[]", "package", ""),
    ):
        (packed / "package.json").write_text(manifest)
        with tarfile.open(tmp_path / "shop-1.2.0.tgz", "w:gz") as archive:
            archive.add(packed, "package")
        opened = open_repository(str(tmp_path / "shop-1.2.0.tgz"), tmp_path / "cache")
        assert (opened.name, opened.version) == (name, version)
        assert opened.tree.paths() == ["lib/cart.js", "package.json"]


def hostile(folder: Path, started: Path) -> None:
    """Let the settings of a repository start programs: a filter, a transport, a monitor."""
    program = f"touch {started};false"
    for name in ("filter.x.smudge", "filter.x.process", "core.sshCommand", "core.fsmonitor"):
        git(folder, "config", name, program)
    git(folder, "config", "url.ssh://host.invalid/.insteadOf", "/")
    git(folder, "config", "core.repositoryFormatVersion", "1")
    git(folder, "config", "extensions.partialClone", "origin")
    git(folder, "config", "remote.origin.promisor", "true")
    git(folder, "config", "remote.origin.url", "ssh://host.invalid/shop")


def test_settings_of_a_repository_start_no_program(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop / ".gitattributes").write_text("*.py filter=x ident\n")
    git(shop, "add", ".")
    git(shop, "commit", "--quiet", "-m", "Third")
    head = git(shop, "rev-parse", "HEAD").strip()
    started = tmp_path / "started"
    hostile(shop, started)
    monkeypatch.chdir(shop)
    opened = open_repository(".", tmp_path / "cache")
    assert opened.history is not None
    assert len(list(opened.history.commits(10))) == 2
    clones = Clones(tmp_path, tmp_path / "cache")
    assert (clones.export(Checkout(repository="shop", commit=head), "row 1") / "cart.py").read_text() == "TOTAL = 2\n"
    assert not started.exists()


def test_a_damaged_clone_of_the_user_is_not_to_be_deleted(shop: Path, tmp_path: Path) -> None:
    head, blob = git(shop, "rev-parse", "HEAD", "HEAD:cart.py").split()
    started = tmp_path / "started"
    hostile(shop, started)
    (shop / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(UserError, match=r"clone is damaged, so clone that repository again$"):
        Clones(tmp_path, tmp_path / "cache").export(Checkout(repository="shop", commit=head), "row 1")
    assert not started.exists()
    assert not list((tmp_path / "cache" / "repositories").iterdir())


def test_files_have_the_bytes_of_their_commit(shop: Path, tmp_path: Path) -> None:
    (shop / ".gitattributes").write_text("* text eol=crlf\n")
    git(shop, "add", ".")
    git(shop, "commit", "--quiet", "-m", "Third")
    assert (open_repository(str(shop / ".git"), tmp_path / "cache").root / "cart.py").read_bytes() == b"TOTAL = 2\n"


def test_a_hook_of_another_repository_does_not_redirect(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--quiet", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert "cart.py" in open_repository(str(shop), tmp_path / "cache").tree.paths()
