# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""configs/seccomp.json against the kernel: forbidden calls are made by number, and everyday tools must not notice.

Needs root, a Docker engine and mmdebstrap; its image is built once (about 30 s) and kept.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import subprocess
import sys
import typing as t
import uuid

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import machine

DOCKER = "/usr/bin/docker"
PROFILE = pathlib.Path(__file__).parents[2] / "configs" / "seccomp.json"
PREFIX = f"seccheck-{uuid.uuid4().hex[:8]}"
EPERM, ENOSYS = 1, 38
NOT_THERE = ("clone3", "prlimit64", "setrlimit")

# What each call is given does nothing, or nothing outside its own child process, where it is let through.
# The last column: without our profile this call gets another answer than EPERM, so the row can fail.
CALLS: list[tuple[str, list[int | str], bool]] = [
    ("io_uring_setup", [1, 0], True),
    ("io_uring_enter", [-1, 0, 0, 0, 0, 0], True),
    ("io_uring_register", [-1, 0, 0, 0], True),
    ("setrlimit", [4, 0], True),
    ("prlimit64", [0, 4, 1, 0], True),
    ("prlimit64", [0, (1 << 32) + 4, 1, 0], True),
    ("io_setup", [1, 0], True),
    ("mmap", [0, 4096, 3, 0x40022, -1, 0], True),
    ("memfd_create", ["huge", 4], True),
    ("shmget", [0, 4096, 0o5600], False),
    ("bpf", [0, 0, 0], False),
    ("perf_event_open", [0, 0, -1, -1, 0], True),
    ("userfaultfd", [1], True),
    ("keyctl", [0, -3, 0], True),
    ("add_key", [0, 0, 0, 0, 0], True),
    ("request_key", [0, 0, 0, 0], True),
    ("ptrace", [0, 0, 0, 0], True),
    ("process_vm_readv", [1, 0, 0, 0, 0, 0], True),
    ("process_vm_writev", [1, 0, 0, 0, 0, 0], True),
    ("process_madvise", [-1, 0, 0, 0, 0], True),
    ("kcmp", [1, 1, 99, 0, 0], True),
    ("pidfd_getfd", [-1, 0, 0], True),
    ("unshare", [0x10000000], True),
    ("setns", [-1, 0], True),
    ("clone", [0x10000011, 0, 0, 0, 0], True),
    ("mount", [0, 0, 0, 0, 0], True),
    ("umount2", [0, 0], False),
    ("pivot_root", [0, 0], False),
    ("move_mount", [-1, 0, -1, 0, 0], False),
    ("open_tree", [-1, 0, 0], True),
    ("fsopen", [0, 0], False),
    ("fsconfig", [-1, 0, 0, 0, 0], True),
    ("fsmount", [-1, 0, 0], False),
    ("fspick", [-1, 0, 0], False),
    ("mount_setattr", [-1, 0, 0, 0, 0], True),
    ("chroot", [0], True),
    ("open_by_handle_at", [-1, 0, 0], True),
    ("name_to_handle_at", [-1, 0, 0, 0, 0], True),
    ("kexec_load", [0, 0, 0, 0], False),
    ("kexec_file_load", [-1, -1, 0, 0, 0], False),
    ("init_module", [0, 0, 0], False),
    ("finit_module", [-1, 0, 0], False),
    ("delete_module", [0, 0], False),
    ("quotactl", [0, 0, 0, 0], True),
    ("quotactl_fd", [-1, 0, 0, 0], True),
    ("swapon", [0, 0], False),
    ("swapoff", [0], False),
    ("reboot", [0, 0, 0, 0], False),
    ("acct", [0], False),
    ("settimeofday", [0, 0], False),
    ("clock_settime", [0, 0], True),
    ("adjtimex", [0], True),
    ("clock_adjtime", [0, 0], True),
    ("iopl", [3], False),
    ("ioperm", [0, 1, 1], False),
    ("syslog", [99, 0, 0], False),
    ("fanotify_init", [0x200, 0], True),
    ("vmsplice", [-1, 0, 0, 0], True),
    ("modify_ldt", [0, 0, 0], True),
    ("memfd_secret", [0], True),
    ("get_mempolicy", [0, 0, 0, 0, 0], True),
    ("move_pages", [0, 0, 0, 0, 0, 0], True),
    ("sethostname", [0, 0], False),
    ("vhangup", [], False),
    ("personality", [0x0040000], True),
    ("socket", [2, 5, 132], True),
    ("socket", [2, 6, 33], True),
    ("socket", [10, 1, 262], True),
    ("socket", [38, 5, 0], True),
    ("socket", [40, 1, 0], True),
    ("socket", [17, 3, 0], False),
    ("socket", [15, 3, 2], True),
    ("socket", [16, 3, 16], True),
    ("socket", [16, 3, 4], True),
    ("ioctl", [-1, 0x5412, 0], True),
    ("ioctl", [-1, 0x100005412, 0], True),
    ("ioctl", [-1, 0x541C, 0], True),
    ("mknod", ["/tmp/whiteout", 0o020000, 0], True),
    ("mknodat", [-100, "/tmp/whiteout2", 0o020000, 0], True),
]
ONLY_X86 = {"iopl", "ioperm", "modify_ldt", "mknod"}
if platform.machine() != "x86_64":
    CALLS = [call for call in CALLS if call[0] not in ONLY_X86]
CALLS.append(("clone3", [0, 0], True))

PROBE = """
import ctypes, json, os, re, subprocess, sys
macros = subprocess.run(["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"],
                        capture_output=True, text=True, check=True).stdout
numbers = {name: int(number) for name, number in re.findall(r"#define __NR_(\\w+) (\\d+)$", macros, re.M)}
libc = ctypes.CDLL(None, use_errno=True)
answers = []
for name, arguments in json.load(sys.stdin):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        values = [ctypes.c_char_p(a.encode()) if isinstance(a, str) else ctypes.c_long(a) for a in arguments]
        parent = os.getpid()
        result = libc.syscall(ctypes.c_long(numbers[name]), *values)
        if os.getpid() == parent:
            os.write(writer, str(0 if result >= 0 else ctypes.get_errno()).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    answers.append(int(os.read(reader, 9) or -1))
    os.close(reader)
json.dump(answers, sys.stdout)
"""

WORKS = {
    "threads": "import threading as h; ts = [h.Thread(target=sum, args=(range(9),)) for _ in range(20)];"
    " [x.start() for x in ts]; [x.join() for x in ts]",
    "subprocess": "import subprocess; assert subprocess.check_output(['sh', '-c', 'echo a | tr a b']) == b'b\\n'",
    "asyncio": "import asyncio\nasync def main():\n p = await asyncio.create_subprocess_exec('true')\n"
    " assert await p.wait() == 0\nasyncio.run(main())",
    "multiprocessing": "import multiprocessing as m\nif __name__ == '__main__':\n"
    " with m.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]",
    "sqlite": "import sqlite3; c = sqlite3.connect('/tmp/t.db'); c.execute('pragma journal_mode=wal');"
    " c.execute('create table x (a)'); c.execute('insert into x values (1)'); c.commit()",
    "loopback": "import socket; s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection("
    "s.getsockname()); a, _ = s.accept(); c.send(b'x'); assert a.recv(1) == b'x'",
    "unix socket": "import socket; s = socket.socket(socket.AF_UNIX); s.bind('/tmp/s'); a, b = socket.socketpair();"
    " a.send(b'x'); assert b.recv(1) == b'x'",
    "interfaces": "import socket; assert ('lo' in [n for _, n in socket.if_nameindex()]);"
    " socket.getaddrinfo('127.0.0.1', 80)",
    "limits": "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, 64)); assert r.getrlimit(r.RLIMIT_NOFILE) == (64, 64);"
    " assert r.getrlimit(r.RLIMIT_CORE) == (1, 1)",
    "fifo": "import os; os.mkfifo('/tmp/fifo'); os.mknod('/tmp/plain')",
    "terminal": "import pty, os; assert os.waitstatus_to_exitcode(pty.spawn(['true'])) == 0",
    "compile": "import subprocess, pathlib; pathlib.Path('/tmp/a.c').write_text('#include <stdio.h>\\nint main()"
    "{return puts(\"hi\")<0;}'); subprocess.run('gcc -O1 -o /tmp/a /tmp/a.c && /tmp/a', shell=True, check=True)",
    "git": "import subprocess; subprocess.run('git init -q /tmp/r && cd /tmp/r && touch f && git add f &&"
    " git -c user.name=n -c user.email=e commit -qm m && git gc -q && git status --porcelain', shell=True, check=True)",
    "tar": "import subprocess; subprocess.run('tar -C /usr/lib/git-core -czf /tmp/g.tgz . && mkdir /tmp/g &&"
    " tar -C /tmp/g -xzf /tmp/g.tgz && cp -a /tmp/g /tmp/g2 && rm -r /tmp/g /tmp/g2', shell=True, check=True)",
}


def _run(*argv: str, **options: t.Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{argv}: {done.stderr[-2000:]}{done.stdout[-500:]}"
    return done


@pytest.fixture(scope="module")
def image() -> str:
    """Return the tag of a Debian with python3, git and gcc, made from the apt sources of this host."""
    if os.geteuid() or subprocess.run([DOCKER, "info"], capture_output=True, check=False).returncode:
        pytest.skip("needs root and a Docker engine")
    return machine.image("bookworm", ["gcc", "git", "libc6-dev", "python3"])


def _container(image: str, name: str, seccomp: str) -> t.Iterator[str]:
    argv = [DOCKER, "run", "-d", "--name", f"{PREFIX}-{name}", "--network", "none", "--read-only", "--cap-drop", "ALL"]
    argv += ["--security-opt", "no-new-privileges", "--security-opt", f"seccomp={seccomp}", "--user", "1500:1500"]
    argv += ["--ulimit", "core=1", "--tmpfs", "/tmp:exec,mode=1777", "--env", "HOME=/tmp", "--init", image, "sleep", "600"]
    _run(*argv)
    yield f"{PREFIX}-{name}"
    _run(DOCKER, "rm", "-f", f"{PREFIX}-{name}")


@pytest.fixture(scope="module")
def guarded(image: str) -> t.Iterator[str]:
    """Yield a container under our profile."""
    yield from _container(image, "guarded", str(PROFILE))


@pytest.fixture(scope="module")
def bare(image: str) -> t.Iterator[str]:
    """Yield the same container without any profile."""
    yield from _container(image, "bare", "unconfined")


def _answers(container: str) -> list[tuple[str, int]]:
    calls = json.dumps([[name, arguments] for name, arguments, _why in CALLS])
    done = _run(DOCKER, "exec", "-i", container, "python3", "-c", PROBE, input=calls)
    return [(f"{name}{args}", errno) for (name, args, _why), errno in zip(CALLS, json.loads(done.stdout), strict=True)]


def test_every_forbidden_call_is_refused(guarded: str) -> None:
    expected = [(f"{name}{args}", ENOSYS if name in NOT_THERE else EPERM) for name, args, _why in CALLS]
    assert _answers(guarded) == expected


def test_the_same_calls_get_through_without_the_profile(bare: str) -> None:
    refused = {call for call, errno in _answers(bare) if errno == (ENOSYS if call.startswith(NOT_THERE) else EPERM)}
    assert refused & {f"{name}{args}" for name, args, open_without in CALLS if open_without} == set()


@pytest.mark.parametrize("name", WORKS)
def test_everyday_work_goes_on(guarded: str, name: str) -> None:
    _run(DOCKER, "exec", guarded, "python3", "-c", WORKS[name])
