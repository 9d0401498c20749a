"""The filter of system calls: it denies those that reach beyond a sandbox, or that are entrances to the kernel.

It is the same in every sandbox. Calls that this machine's libseccomp has no name for, as it is older than the kernel,
fail as if the kernel did not have them.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import json
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from regrade.evaluators.sandboxes.base import SandboxError

DENIED = {
    "keys of the kernel, which outlive their process and are those of a user": "add_key keyctl request_key",
    "other processes": """
        ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_getfd move_pages
        migrate_pages
    """,
    "namespaces and mounts: a user would be root of a namespace of its own": """
        unshare setns mount umount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick
        mount_setattr open_tree_attr statmount listmount
    """,
    "programs in the kernel, and much used entrances to it": """
        bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register fanotify_init fanotify_mark
        lookup_dcookie vmsplice modify_ldt
    """,
    "files by handle, beyond the mounts": "name_to_handle_at open_by_handle_at",
    "the machine": """
        acct bdflush clock_adjtime clock_adjtime64 clock_settime clock_settime64 create_module delete_module
        finit_module get_kernel_syms init_module ioperm iopl kexec_file_load kexec_load nfsservctl quotactl quotactl_fd
        query_module reboot sethostname setdomainname settimeofday stime swapoff swapon syslog sysfs _sysctl uselib
        ustat vhangup vm86 vm86old adjtimex
    """,
}
"""What they reach -> names of the calls that fail with EPERM."""
NEW_NAMESPACES = 0x7E020000
"""The CLONE_NEW... flags of clone(2)."""
SOCKET_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
"""Others (virtual machines, kernel cryptography, packets, ...) are entrances to the kernel or beyond the sandbox."""
PERSONALITIES = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, with 32 bits or with an old version number, and the question for the current one."""
LARGEST_NUMBER = 1024
"""Numbers of system calls are below."""

ABSENT_IN_GVISOR = frozenset({"mq_open"})
"""A message queue outlives its candidate, and gVisor shows none in /dev/mqueue, where the worker could remove it."""
FILTERED = """
import base64, ctypes, os, struct, sys
program = ctypes.create_string_buffer(base64.b64decode(sys.argv[1]))
size = (len(program) - 1) // 8
if ctypes.CDLL(None, use_errno=True).prctl(22, 2, struct.pack("HxxxxxxP", size, ctypes.addressof(program)), 0, 0):
    sys.exit(f"the filter of system calls was not installed: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Python code that installs a filter (PR_SET_SECCOMP) and starts a program."""


class AllowedCall(NamedTuple):
    """Allows a system call if its first argument, of which only the bits of the mask count, has the value."""

    name: str
    mask: int = 0
    value: int = 0


@functools.cache
def program(absent: frozenset[str] = frozenset()) -> bytes:
    """The filter as a BPF program. `absent`: further calls that fail as if the kernel did not have them.

    Raises:
        SandboxError: libseccomp is not installed.
    """
    names = _names() - absent  # raises SandboxError
    import pyseccomp

    filter_ = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.ENOSYS))
    filter_.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a search tree: hundreds of comparisons for each call otherwise
    for name in names & _denied():
        filter_.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    for rule in _allowed(names):
        condition = [pyseccomp.Arg(0, pyseccomp.MASKED_EQ, rule.mask, rule.value)] if rule.mask else []
        filter_.add_rule(pyseccomp.ALLOW, rule.name, *condition)
    with os.fdopen(os.memfd_create("filter"), "w+b") as file:
        filter_.export_bpf(file)
        file.seek(0)
        return file.read()


@functools.cache
def profile() -> str:
    """The filter in Docker's JSON format. Raises SandboxError: libseccomp is not installed."""
    names = _names()
    allowed = [
        {
            "names": [rule.name],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": rule.mask, "valueTwo": rule.value}]
            if rule.mask
            else [],
        }
        for rule in _allowed(names)
    ]
    denied = {"names": sorted(names & _denied()), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}
    # By name as well: engines before version 23 fail the calls without a rule with EPERM.
    absent = {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}
    return json.dumps(
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno.ENOSYS, "syscalls": [denied, absent, *allowed]}
    )


def program_descriptor() -> int:
    """A new descriptor from which the program can be read once. Raises SandboxError: libseccomp is not installed."""
    content = program()
    descriptor = os.memfd_create("filter")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def filtered_in_gvisor(python: str, arguments: Sequence[str]) -> list[str]:
    """A command that installs the filter, then starts the interpreter with the arguments.

    For gVisor, because `runsc` ignores filters by default, and its older versions deny calls with one error only.

    Raises:
        SandboxError: libseccomp is not installed.
    """
    filter_ = base64.b64encode(program(ABSENT_IN_GVISOR)).decode()
    return [python, "-I", "-S", "-c", FILTERED, filter_, python, *arguments]


def _allowed(names: set[str]) -> Iterator[AllowedCall]:
    # The flags of clone3 are in memory, where no filter sees them. Without it, the C library uses clone.
    conditional = {"clone", "clone3", "personality", "socket"}
    yield from (AllowedCall(name) for name in sorted(names - _denied() - conditional))
    yield AllowedCall("clone", NEW_NAMESPACES)
    yield from (AllowedCall("personality", 0xFFFFFFFF, value) for value in PERSONALITIES)
    yield from (AllowedCall("socket", 0xFFFFFFFF, family) for family in SOCKET_FAMILIES.values())


def _denied() -> set[str]:
    return {name for names in DENIED.values() for name in names.split()}


def _names() -> set[str]:
    """All system calls of this machine that libseccomp has a name for."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError) as error:
        raise SandboxError(f"the filter of system calls is missing ({error}): apt-get install libseccomp2") from error
    names = set()
    for number in range(LARGEST_NUMBER):
        with contextlib.suppress(ValueError):
            names.add(str(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, number).decode()))
    return names
