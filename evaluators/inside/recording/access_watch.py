"""A pytest plugin that fails each test which uses a resource that sandboxes block, and lists the resources.

It imports nothing of this package: it is copied into a tree under test, whose conftest.py imports it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
import tempfile
from collections.abc import Generator
from typing import Any

import pytest

TARGET, NETWORK, HISTORY, OUTSIDE = "target", "network", "git", "outside"
SYSTEM = (
    *("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/proc", "/run", "/sbin", "/sys"),
    *("/tmp", "/usr", "/var"),
)
NAME_LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})
LOCAL = frozenset({"", "localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback", "0.0.0.0", "::"})
NETWORK_PROGRAMS = frozenset({"curl", "ftp", "ping", "rsync", "scp", "ssh", "telnet", "wget"})
MOST, LONGEST = 4, 80


class Reached(Exception):
    """A test used a blocked resource; the message lists what."""


class Attempts:
    """Blocked resources that were used since the last report."""

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}
        self._collected: dict[str, dict[str, None]] = {}
        self._root = self._own_name = ""
        self._allowed: tuple[str, ...] = ()

    def start(self) -> None:
        """Install the audit hook, irrevocably. The working directory is the tree."""
        self._root = os.getcwd()  # noqa: PTH109
        self._own_name = socket.gethostname()
        own = (sys.prefix, sys.base_prefix, tempfile.gettempdir(), os.path.expanduser("~"), sys.pycache_prefix or "")  # noqa: PTH111
        allowed = {*SYSTEM, *own, *sys.path, *map(os.path.realpath, own), *map(os.path.realpath, sys.path)}
        # A folder that contains the tree itself is not allowed, such as the temporary folder that it was written to.
        self._allowed = tuple(sorted(path for path in allowed if path and not _is_within(self._root, path)))
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook. It must never raise: an exception would prevent the audited operation."""
        with contextlib.suppress(Exception):
            what = self._description(event, arguments)
            if what:
                self._seen[what] = None

    def target(self) -> None:
        """A function of the task's target is executed."""
        self._seen[TARGET] = None

    def collected(self, path: str) -> None:
        """Attribute the events so far to the import of a test file, or of the conftest.py of a folder."""
        if self._seen:
            self._collected.setdefault(path, {}).update(self._seen)
            self._seen = {}

    def begin(self, path: str) -> None:
        """Start the next test: the first of a file counts for the file's import, the first of all for earlier ones."""
        for importer in [name for name in self._collected if name == path or not name.endswith(".py")]:
            self._seen = {**self._collected.pop(importer), **self._seen}

    def report(self) -> None:
        """Raises Reached if an event was recorded."""
        seen, self._seen = self._seen, {}
        if seen:
            first = sorted(seen, key=lambda what: what != TARGET)
            raise Reached("; ".join(" ".join(what.replace(";", ",").split())[:LONGEST] for what in first[:MOST]))

    def _description(self, event: str, arguments: tuple[Any, ...]) -> str:
        if event.startswith("socket."):
            return self._network(event, arguments)
        if event in ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system"):
            return self._program(event, arguments)
        if event in ("open", "os.listdir", "os.scandir", "os.chdir") and isinstance(arguments[0], (str, bytes)):
            return self._path(os.fsdecode(arguments[0]))
        return ""

    def _network(self, event: str, arguments: tuple[Any, ...]) -> str:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            address = arguments[1]
            if isinstance(address, tuple) and not self._is_local(address[0]):
                return f"{NETWORK} {_plain(address[0])}:{address[1]}"
            return ""
        host = arguments[0] if event in NAME_LOOKUPS else None
        is_name = not self._is_local(host) and _address(host) is None
        return f"{NETWORK} {_plain(host)}" if is_name else ""

    def _is_local(self, host: Any) -> bool:
        if host is None or _plain(host) in LOCAL or _plain(host) == self._own_name:
            return True
        address = _address(host)
        return address is not None and address.is_loopback

    def _program(self, event: str, arguments: tuple[Any, ...]) -> str:
        if event == "os.system":
            words = os.fsdecode(arguments[0]).split()
        else:
            command = arguments[1] if len(arguments) > 1 else ()
            words = command.split() if isinstance(command, str) else [os.fsdecode(word) for word in command or ()]
        name = os.path.basename(words[0]) if words else ""  # noqa: PTH119
        if name in NETWORK_PROGRAMS:
            return f"{NETWORK} by {name}"
        folder = arguments[2] if event == "subprocess.Popen" else None
        if name == "git" and _is_within(os.path.abspath(os.fsdecode(folder or ".")), self._root):  # noqa: PTH100
            return " ".join((HISTORY, "by", *words[:3]))
        return ""

    def _path(self, path: str) -> str:
        full = os.path.abspath(path)  # noqa: PTH100
        if _is_within(full, self._root):
            return f"{HISTORY} {full[len(self._root) + 1 :]}" if "/.git/" in f"{full}/" else ""
        return "" if any(_is_within(full, folder) for folder in self._allowed) else f"{OUTSIDE} {full}"


def _plain(host: Any) -> str:
    return os.fsdecode(host) if isinstance(host, (str, bytes)) else str(host)


def _address(host: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(_plain(host).partition("%")[0])
    except ValueError:
        return None


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


ATTEMPTS = Attempts()
"""Of the process that runs the tests."""
if "." not in __name__:  # in a tree, before its other conftest.py files; elsewhere only the names above are used
    ATTEMPTS.start()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    result = yield
    ATTEMPTS.collected(collector.nodeid.split("::", 1)[0])
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Events of the set-up are reported after the test itself, unless it never runs."""
    ATTEMPTS.begin(item.nodeid.split("::", 1)[0])
    try:
        return (yield)
    except BaseException as error:
        _report_from(error)
        raise


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    try:
        result = yield
    except BaseException as error:
        _report_from(error)
        raise
    ATTEMPTS.report()
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Generator[None, Any, Any]:
    result = yield
    ATTEMPTS.report()
    return result


def _report_from(error: BaseException) -> None:
    try:
        ATTEMPTS.report()
    except Reached as reached:
        raise reached from error
