# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every service's process does alike: its loop, its signals, and its words on standard error."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import typing as t
from pathlib import Path

import uvloop

from dockersandbox.common import config

CONFIGS = "/etc/guardrails"
# What the kernel is told (madvise(2)): have this on large pages as time goes by, and now.
_ADVICE = (14, 25)
_LARGE = 2 << 20


def say(name: str, text: str) -> None:
    """Write one line to standard error, which the engine keeps."""
    sys.stderr.write(f"{name}: {' '.join(text.split())}\n")
    sys.stderr.flush()


def large_pages() -> None:
    """Have the memory of this process, as it is now, on large pages where the kernel does so: at once since Linux 6.1.

    The interpreter goes to so many places for a request that finding them in tables is a tenth of its time in a virtual machine.
    What the kernel does not do is left as it is: nothing but time depends on it.
    """
    advise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text(encoding="ascii", errors="replace").splitlines():
        place, rights, _offset, _device, _inode, *name = line.split(maxsplit=5)
        begin, end = (int(address, 16) for address in place.split("-"))
        begin, end = -(-begin // _LARGE) * _LARGE, end // _LARGE * _LARGE
        if rights == "rw-p" and name in ([], ["[heap]"]) and begin < end:
            for advice in _ADVICE:
                advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice)


class Signals(t.NamedTuple):
    """Set when the process is told to end (SIGTERM, SIGINT), or to read its configuration again (SIGHUP)."""

    end: asyncio.Event
    reload: asyncio.Event


def signals() -> Signals:
    """Return the events of this loop's signals."""
    found = Signals(asyncio.Event(), asyncio.Event())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, found.end.set)
    loop.add_signal_handler(signal.SIGHUP, found.reload.set)
    return found


def run(name: str, main: t.Callable[[Path], t.Coroutine[t.Any, t.Any, int]], *failures: type[Exception]) -> t.NoReturn:
    """Run *main* with the path of the configuration (the first argument, or the usual place), and exit with what it returns.

    One of *failures* ends the process with its text, in one line.
    """
    path = Path(sys.argv[1] if len(sys.argv) > 1 else os.path.join(CONFIGS, f"{name}.json"))
    # What a service writes is for its own user; files that others read are given their mode.
    os.umask(0o027)
    try:
        sys.exit(uvloop.run(main(path)))
    except Exception as error:
        if not isinstance(error, (config.ConfigError, *failures)):
            raise
        say(name, str(error))
        sys.exit(1)
