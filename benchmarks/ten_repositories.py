"""Ten real repositories of different shape become task sets, without any setting, as a new user would build them.

Each is a pinned release, fetched by pip, npm or apt, and given to `regrade tasks build` with a limit and nothing else.
For each source the table has the valid tasks of the tried candidates, and the seconds of all their executions for each
valid task; for the whole command, its wall and CPU time, which include the environment. A repository without a task has
the reason instead. The figures of a built repository are stored in the folder, so that the same command goes on where
it was stopped.

    python benchmarks/ten_repositories.py --out /tmp/ten
    python benchmarks/ten_repositories.py --out /tmp/ten --only itsdangerous --only go-version
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _latest import record

REGRADE = Path(sys.executable).with_name("regrade")
SOURCES = ("mutation", "features")


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A pinned release, and what is special about it."""

    name: str
    shape: str
    package: str = ""
    """As pip names it: `NAME==VERSION`."""
    npm: str = ""
    """As npm names it: `NAME@VERSION`."""
    debian: str = ""
    """Debian's package of Go sources, with its version."""
    folder: str = ""
    """Of the sources in it."""

    @property
    def preparation(self) -> list[str]:
        """The command that fetches what the build can't fetch by itself; empty: it can."""
        if self.npm:
            return ["npm", "pack", "--silent", self.npm]
        return ["apt-get", "download", "-qq", self.debian] if self.debian else []

    def fetched(self, place: Path) -> str:
        """What `regrade tasks build` gets."""
        if not self.preparation:
            return self.package
        place.mkdir(parents=True, exist_ok=True)
        if not any(place.iterdir()):
            subprocess.run(self.preparation, cwd=place, check=True, stdout=subprocess.DEVNULL)
        (archive,) = [path for path in place.iterdir() if path.is_file()]
        if self.npm:
            return str(archive)
        subprocess.run(["dpkg-deb", "-x", str(archive), str(place / "files")], check=True)
        return str(place / "files" / self.folder)


REPOSITORIES = (
    Repository(name="itsdangerous", shape="src layout, flit", package="itsdangerous==2.2.0"),
    Repository(name="inflection", shape="flat, one module, setup.py", package="inflection==0.5.1"),
    Repository(name="markupsafe", shape="C extension", package="MarkupSafe==3.0.3"),
    Repository(name="jaraco.functools", shape="namespace package", package="jaraco.functools==4.4.0"),
    Repository(name="python-slugify", shape="unittest, one file test.py", package="python-slugify==8.0.4"),
    Repository(name="jaraco.collections", shape="doctests", package="jaraco.collections==5.1.0"),
    Repository(name="isodate", shape="tests declared in tox.ini alone", package="isodate==0.7.2"),
    Repository(name="asgiref", shape="async", package="asgiref==3.8.1"),
    Repository(name="merge-json-schemas", shape="JavaScript, Node's runner", npm="@fastify/merge-json-schemas@0.2.1"),
    Repository(
        name="go-version",
        shape="Go",
        debian="golang-github-hashicorp-go-version-dev=1.3.0-1",
        folder="usr/share/gocode/src/github.com/hashicorp/go-version",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the task sets and figures; default: a temporary one")
    parser.add_argument("--limit", type=int, default=5, help="tasks of one source")
    parser.add_argument("--source", action="append", help=f"default: {' and '.join(SOURCES)}; repeat for more")
    parser.add_argument("--only", action="append", help="name of a repository; repeat for more")
    parser.add_argument("--workers", type=int, help="parallel sandboxes; default: one per core")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as temporary:
        out = (chosen.out or Path(temporary)).resolve()
        sources = chosen.source or list(SOURCES)
        options = ["--limit", str(chosen.limit), *(word for name in sources for word in ("--source", name))]
        if chosen.workers:
            options += ["--workers", str(chosen.workers)]
        selected = [each for each in REPOSITORIES if not chosen.only or each.name in chosen.only]
        figures = {each.name: _measured(each, options, out) for each in selected}
    _print_table(selected, figures, sources)
    if not chosen.only:
        record("ten_repositories", {"limit": chosen.limit, "repositories": figures})


def _measured(repository: Repository, options: Sequence[str], out: Path) -> Mapping[str, Any]:
    """The figures of one repository, from the folder if they are there."""
    stored = out / f"{repository.name}.json"
    if stored.is_file():
        return json.loads(stored.read_text())  # type: ignore[no-any-return]
    source = repository.fetched(out / "fetched" / repository.name)
    figures = built(source, options, out, repository.name)
    if "yield" in figures:  # a failure may be that of a busy machine: the same command tries again
        stored.write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def built(source: str, options: Sequence[str], out: Path, name: str) -> dict[str, Any]:
    """The figures of `regrade tasks build SOURCE`, which writes the set `out/NAME`; without `yield`, it failed."""
    command = [str(REGRADE), "tasks", "build", source, *options, "--out", str(out / name), "--json"]
    print(f"{name}: {shlex.join(command)}", file=sys.stderr)
    environment = {"REGRADE_CACHE": str(out / "cache"), **os.environ}
    began, used = time.monotonic(), _cpu()
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as build:
        for line in build.stderr or ():
            print(line, end="", file=sys.stderr, flush=True)
            lines.append(line.strip())
        printed = build.stdout.read() if build.stdout else ""  # one line
    times = {"wall_s": round(time.monotonic() - began, 1), "cpu_s": round(_cpu() - used, 1)}
    notes = [line for line in lines if line.startswith("note: ")]
    if build.returncode:
        return {"tasks": 0, **times, "notes": notes, "reason": lines[-1] if lines else ""}
    value = json.loads(printed)
    return {"tasks": value["tasks"], **times, "notes": notes, "yield": _by_source(value["yield"])}


def _cpu() -> float:
    """CPU seconds of all programs that this one started and that ended, with those that they started."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def _by_source(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    sums: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = sums.setdefault(row["source"], {"tried": 0, "valid": 0, "seconds": 0.0, "dropped": {}})
        for key in ("tried", "valid", "seconds"):
            one[key] = round(one[key] + row[key], 3)
        for reason, count in row["dropped"].items():
            one["dropped"][reason] = one["dropped"].get(reason, 0) + count
    return sums


def _print_table(
    repositories: Sequence[Repository], figures: Mapping[str, Mapping[str, Any]], sources: Sequence[str]
) -> None:
    print(f"| repository | shape | {' | '.join(f'{name}, seconds a task' for name in sources)} | wall s | CPU s |")
    print("|-|-|" + "-|" * len(sources) + "-|-|")
    for each in repositories:
        own = figures[each.name]
        cells = [_cell(own["yield"].get(name)) for name in sources] if "yield" in own else [own["reason"]]
        cells += [""] * (len(sources) - len(cells))
        name = each.package or each.npm or each.debian
        print(f"| `{name}` | {each.shape} | {' | '.join(cells)} | {own['wall_s']:.0f} | {own['cpu_s']:.0f} |")


def _cell(row: Mapping[str, Any] | None) -> str:
    """`valid of tried, seconds a task`."""
    if row is None:
        return "no candidate"
    seconds = f", {row['seconds'] / row['valid']:.1f}" if row["valid"] else ""
    return f"{row['valid']} of {row['tried']}{seconds}"


if __name__ == "__main__":
    main()
