"""What the decoder's process may still do once everything is imported: read its socket, compute, write its socket.

Promises: no descriptor more can be opened (so no file and no connection), no file written, no process started; memory
and CPU have limits; it does not outlive the thread that started it. Where the kernel has seccomp, all other system
calls fail, too. None of it needs a privilege.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import resource
import signal
import struct

_LISTED = {  # the machine's AUDIT_ARCH, and its numbers of the calls below, in this order
    "x86_64": (
        0xC000003E,
        "0 1 3 5 8 9 10 11 12 13 14 15 24 25 28 36 38 39 60 96 98 131 186 202 204 219 228 231 273 318",
    ),
    "aarch64": (
        0xC00000B7,
        "63 64 57 80 62 222 226 215 214 134 135 139 124 216 233 "
        "102 103 172 93 169 165 132 178 98 123 128 113 94 99 278",
    ),
}
"""read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn sched_yield mremap
madvise getitimer setitimer getpid exit gettimeofday getrusage sigaltstack gettid futex sched_getaffinity
restart_syscall clock_gettime exit_group set_robust_list getrandom"""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF
_ALLOW, _FAIL = 0x7FFF0000, 0x00050001  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def follow_parent(parent: int) -> None:
    """End with the thread that started this process. Ends at once if it has ended already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def confine(*, memory: int, cpu: float) -> bool:
    """Give up the rest: `memory`, bytes above what is in use; `cpu`, seconds in all. Whether seccomp holds."""
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CPU, math.ceil(cpu)),
        (resource.RLIMIT_AS, _address_space() + memory),
        (resource.RLIMIT_NOFILE, 3),  # they are open
    ):
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    _prctl(_PR_SET_DUMPABLE, 0)
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1) and _filter_calls()


def _address_space() -> int:
    """Bytes."""
    with open("/proc/self/statm") as file:  # noqa: PTH123  # pathlib would cost the process a megabyte
        return int(file.read().split()[0]) * resource.getpagesize()


def _filter_calls() -> bool:
    arch, numbers = _LISTED.get(platform.machine(), (0, ""))
    if not arch:
        return False
    calls = [int(number) for number in numbers.split()]
    lines = [(_LOAD, 0, 0, 4), (_JUMP_IF_EQUAL, 0, len(calls) + 1, arch), (_LOAD, 0, 0, 0)]
    lines += [(_JUMP_IF_EQUAL, len(calls) - index, 0, call) for index, call in enumerate(calls)]
    lines += [(_RETURN, 0, 0, _FAIL), (_RETURN, 0, 0, _ALLOW)]
    program = _Program(len(lines), b"".join(struct.pack("<HBBI", *line) for line in lines))
    return _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program))


def _prctl(*arguments: object) -> bool:
    call = ctypes.CDLL(None).prctl
    padded = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in (*arguments, 0, 0, 0)[:5]]
    return bool(call(*padded) == 0)
