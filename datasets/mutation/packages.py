"""The pinned packages of the ready-made tasks, and the download of their source distributions."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from regrade.datasets.caches import default_cache
from regrade.datasets.errors import UserError

TEST_REQUIREMENTS = (
    "pytest==9.2.0",
    "iniconfig==2.3.1",
    "packaging==26.3",
    "pluggy==1.7.0",
    "pygments==2.21.0",
    "typing-extensions==4.16.0",
    "whatever==0.7",
)
"""The pinned environment for the tests of all packages: one virtual environment."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A released package whose source distribution contains its tests."""

    name: str
    version: str
    sha256: str
    """Of the source distribution (`.tar.gz`)."""
    subject: tuple[str, ...]
    """Files or folders of library code, relative to the root, in which bugs are planted."""
    paths: tuple[str, ...]
    """Files or folders passed to pytest."""
    python_path: tuple[str, ...] = (".",)
    left_out: tuple[str, ...] = ()
    """Prefixes of the ids of excluded tests: slow (over 0.12 s), racing, or unable to run. The list is fixed: with a
    list measured at each build, the tasks would depend on the machine."""
    requirements: tuple[str, ...] = TEST_REQUIREMENTS
    wall_seconds: float = 12.0
    """Limit of one run of the tests: several times the duration of the slowest suite."""
    group: str = "training"
    """`training`, or `held_out`: never trained on."""

    @property
    def options(self) -> tuple[str, ...]:
        """Options for pytest: the excluded tests, without the package's own options (such as coverage)."""
        return (
            "-o",
            "addopts=",
            *(f"--deselect={test}" for test in self.left_out if not test.endswith((".py", "/"))),
            *(f"--ignore={test.rstrip('/')}" for test in self.left_out if test.endswith((".py", "/"))),
        )

    @property
    def folder(self) -> str:
        """Name of the unpacked folder: `name-version`."""
        return f"{self.name}-{self.version}"


# fmt: off
PACKAGES: tuple[Package, ...] = (
    Package(name="anytree", version="2.13.0", sha256="c9d3aa6825fdd06af7ebb05b4ef291d2db63e62bb1f9b7d9b71354be9d362714",
            subject=("src/anytree",), paths=("tests",), python_path=("src",),
            left_out=("tests/test_dotexport.py", "tests/test_dotexporter.py", "tests/test_mermaidexporter.py",
                      "tests/test_uniquedotexporter.py")),  # they import a helper that the archive lacks
    Package(name="boltons", version="26.2.0", sha256="d39cfd15c1a1c3bd4d705c82252fa9edb8e4f5e8cc039f8e39afac7b1b47e92c",
            subject=("boltons",), paths=("tests",),
            left_out=("tests/test_funcutils.py::test_once_thread_safety", "tests/test_gcutils.py",
                      "tests/test_listutils.py::test_barrel_list", "tests/test_funcutils_fb_py3.py::test_wraps_async",
                      "tests/test_socketutils.py", "tests/test_iterutils.py::test_seqguiderator")),
    Package(name="cachetools", version="8.0.1",
            sha256="deb1d376d4d28c2f33f3e3058043b005e0af75c35c094bd54053e27d2906ad95",
            subject=("src/cachetools",), paths=("tests",), python_path=("src",),
            left_out=("tests/test_lfu.py::LFUCacheTest::test_lfu_copy_use_counts",)),
    Package(name="funcy", version="2.1", sha256="8979feb3de7120afd1d00e5a8eae810c1942e4bfbc91697151e9ee1e49f79284",
            subject=("funcy",), paths=("tests",), group="held_out"),
    Package(name="inflection", version="0.5.1",
            sha256="1a29730d366e996aaacffb2f1f1cb9593dc38e2ddd30c91250c6dde09ea9b417",
            subject=("inflection",), paths=("test_inflection.py",)),
    Package(name="more-itertools", version="11.2.1",
            sha256="cbf08fd0af284dc69718b9b76a8e6203df624d70209ea511e4219d350c856f63",
            subject=("more_itertools",), paths=("tests",),
            left_out=(
                "tests/test_more.py::CallbackIterTests",
                "tests/test_more.py::DerangementsTests::test_unique_values",
                "tests/test_more.py::DiscreteFourierTransformTests::test_roundtrip",
                "tests/test_more.py::DistinctPermutationsTests::test_r",
                "tests/test_more.py::ExtractTests",
                "tests/test_more.py::IsliceExtendedTests::test_all",
                "tests/test_more.py::MinMaxTests::test_key_matches_builtins",
                "tests/test_more.py::TestConcurrentTee",
                "tests/test_more.py::TestRandomOrderedRange::test_lcg_mitigation",
                "tests/test_more.py::TestSerialize::test_concurrent_calls",
                "tests/test_more.py::TestSubfactorial::test_vs_derangements",
                "tests/test_more.py::TestSynchronized::test_concurrent_calls",
                "tests/test_more.py::TimeLimitedTests",
                "tests/test_recipes.py::FactorTests::test_cross_check",
                "tests/test_recipes.py::PolynomialFromRootsTests::test_large",
                "tests/test_recipes.py::PrimeFunctionTests",
                "tests/test_recipes.py::RunningMedianTests::test_vs_statistics_median",
            )),
    Package(name="parse", version="1.22.4", sha256="706d458feed5a81b02768d3156e8070baf6cee7d150a3a3c0cd43101a875c3b5",
            subject=("parse",), paths=("tests",),
            # Its failures hold the year of the day.
            left_out=("tests/test_parse.py::test_flexible_dates_year_current_year_inferred",)),
    Package(name="pydash", version="8.1.0", sha256="30914c3e9d377ea2cd0d3c0a4f252889b08392f730a5eb4d117e5b598cdf1d52",
            subject=("src/pydash",), paths=("tests",), python_path=("src",),
            left_out=("tests/pytest_mypy_testing/",  # for a type checker, not to be run
                      *(f"tests/test_functions.py::test_{name}" for name in ("debounce", "throttle", "delay")),  # they
                      "tests/test_utilities.py::test_retry", "tests/test_utilities.py::test_now",  # measure time
                      "tests/test_objects.py::test_to_string"),  # an id of it holds the date of the day
            group="held_out"),
    Package(name="semver", version="3.1.1", sha256="149b26cabada6f63212f97e94505d21578cb1d280cf714827f328d5e70765fea",
            subject=("src/semver",), paths=("tests",), python_path=("src",)),
    Package(name="sqlparse", version="0.6.1", sha256="ca722573f848ff2d30e40ea30f53a104b7dea7635ea9285891263eb2c58fb6e7",
            subject=("sqlparse",), paths=("tests",), left_out=("tests/test_dos_prevention.py", "tests/test_cli.py")),
    Package(name="tabulate", version="0.10.0",
            sha256="e2cfde8f79420f6deeffdeda9aaec3b6bc5abce947655d17ac662b126e48a60d",
            subject=("tabulate",), paths=("test",), left_out=("test/test_cli.py",)),
    Package(name="toolz", version="1.2.0", sha256="9667a038e9d6ecba37995e26cb2f59ec6420b6ad8dd9677de59db9b956b08490",
            subject=("toolz",), paths=("toolz",)),
    Package(name="webcolors", version="25.10.0",
            sha256="62abae86504f66d0f6364c2a8520de4a0c47b80c03fc3a5f1815fedbef7c19bf",
            subject=("src/webcolors",), paths=("tests",), python_path=("src",)),
    Package(name="xmltodict", version="1.0.4",
            sha256="6d94c9f834dd9e44514162799d344d815a3a4faec913717a9ecbfa5be1bb8e61",
            subject=("xmltodict.py",), paths=("tests",),
            left_out=("tests/test_xmltodict.py::test_streaming_memory_usage",)),
)
# fmt: on


def package(name: str) -> Package:
    """The package with that name. Raises UserError, with all names, if there is none."""
    packages = {candidate.name: candidate for candidate in PACKAGES}
    if name not in packages:
        raise UserError(f"no pinned package {name!r}; choose from: {', '.join(packages)}")
    return packages[name]


def subject_files(package: Package, root: Path) -> list[str]:
    """Sorted root-relative paths of the package's library modules, without test modules among them."""
    modules: list[str] = []
    for subject in package.subject:
        path = root / subject
        files = [path] if path.is_file() else path.rglob("*.py")
        modules += [file.relative_to(root).as_posix() for file in files]
    return sorted(module for module in modules if not {"tests", "test"} & set(Path(module).parts))


def fetch(package: Package, cache: Path | None = None) -> Path:
    """The root of the package's unpacked source distribution, downloaded with pip if it is not in the cache.

    The archive's SHA-256 is checked (by pip, before any use of it, and here). The folder appears in one rename, so that
    a stopped download leaves no partial folder.

    Raises:
        UserError: no network, no such release, or an archive with another digest.
    """
    sources = (cache or default_cache()) / "sources"
    root = sources / package.folder
    if root.is_dir():
        return root
    sources.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=sources, prefix=".fetch-") as name:
        archive = _download(package, Path(name))
        unpacked = unpack(archive, Path(name) / "unpacked")
        try:
            unpacked.rename(root)
        except OSError:
            if not root.is_dir():  # else another process has stored the same bytes
                raise
    return root


def fetch_all(
    packages: Sequence[Package] = PACKAGES,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path]:
    """Package name -> root, fetched in parallel; `progress(done, total)` is called after each package.

    Raises:
        UserError: see `fetch`; pending downloads are cancelled.
    """
    roots: dict[str, Path] = {}
    # The network and pip's start take the time, so threads pay on any machine.
    with ThreadPoolExecutor(max_workers=4) as pool:
        pending = {pool.submit(fetch, package, cache): package for package in packages}
        try:
            for done, future in enumerate(as_completed(pending), start=1):
                roots[pending[future].name] = future.result()
                if progress:
                    progress(done, len(packages))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return {package.name: roots[package.name] for package in packages}


def _download(package: Package, folder: Path) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    archive = _pip_download(
        f"{package.name}=={package.version}", package.name, folder, ["--requirement", str(requirement)]
    )
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise UserError(f"{archive.name} has SHA-256 {digest}, not {package.sha256}: not the pinned release")
    return archive


def download_source(requirement: str, name: str, folder: Path) -> Path:
    """The source distribution of a release such as `NAME==VERSION`, downloaded into `folder`.

    To learn its name and version, pip runs the build backend of the release, outside of any sandbox.

    Raises:
        UserError: no network, no such release, or it has no source distribution.
    """
    return _pip_download(requirement, name, folder, [requirement])


def _pip_download(requirement: str, name: str, folder: Path, wanted: Sequence[str]) -> Path:
    options = ["--quiet", "--no-deps", "--no-binary", name, "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), *wanted]
    environment = {**os.environ, "PIP_NO_INPUT": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    archives = sorted(path for path in folder.iterdir() if path.name.endswith((".tar.gz", ".zip", ".tar.bz2")))
    if result.returncode or len(archives) != 1:
        raise UserError(
            f"cannot fetch {requirement} with pip: {_reason(result.stderr)}; check the network "
            "(pip's settings for an index or proxy apply) and run the command again"
        )
    return archives[0]


def _reason(stderr: str) -> str:
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    return (errors[0] if errors else stderr.strip() or "pip failed without a message")[:300].rstrip(". ")


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack into `folder`, return the single folder in it. No member can leave it (tarfile's `data` filter)."""
    if not hasattr(tarfile, "data_filter"):
        raise UserError("this Python cannot unpack archives safely (no tarfile.data_filter): use 3.11.4 or newer")
    try:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"cannot unpack {archive.name}: {error}; no file of it was stored") from error
    roots = list(folder.iterdir())
    if len(roots) != 1 or not roots[0].is_dir():
        shutil.rmtree(folder)
        raise UserError(f"{archive.name} does not contain a single folder: it is not a source distribution")
    return roots[0]
