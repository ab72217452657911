# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rights: set-id files, file capabilities, other users."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess

from security.arena import Box
from security.cases import Scene, case


def _rights(box: Box) -> set[str]:
    """Return what is more than the sandbox's user among the users and capabilities of its processes, for the host's kernel."""
    users = {user for line in box.status("Uid") | box.status("Gid") for user in line.split()}
    # gVisor's own processes are nobody's or root's on the host, in namespaces of their own; inside is what counts there.
    found = users - {str(box.uid)} if box.runtime == "runc" else set()
    if box.runtime == "runc":
        found |= {f"capabilities {value}" for value in box.status("CapEff") if int(value, 16)}
    return found


@case("become another user by every call there is", "user")
def become_root(scene: Scene) -> str:
    with scene.attack("attempt(lambda: call('setresuid', 0, 0, 0))\nattempt(lambda: os.setgroups([0]))\nattempt(lambda: os.setgid(0))\nhold()\n"):
        found = _rights(scene.box)
    return f"it runs as {min(found)}" if found else ""


@case("run a set-id shell that root has left in the originals", "originals behind overlays + no new privileges + seccomp")
def set_id_original(scene: Scene) -> str:
    with scene.attack(
        "keep = [subprocess.Popen([path, '-p', '-c', 'read x'], stdin=subprocess.PIPE) for path in ('/originals/root-shell', '/workspace/root-shell')]\n"
        "time.sleep(0.3)\nhold()\n"
    ):
        found = _rights(scene.box)
    return f"it runs as {min(found)}" if found else ""


@case("run every program of the image that has a set-id bit or capabilities")
def set_id_image(scene: Scene) -> str:
    script = """
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys")]
    for name in names:
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            if os.lstat(path).st_mode & 0o6000 and stat.S_ISREG(os.lstat(path).st_mode) and path.split("/")[1] not in ("originals", "workspace"):
                print("set-id", path)
            if "security.capability" in os.listxattr(path, follow_symlinks=False):
                print("capable", path)
"""
    found = [line for line in scene.said(script, 60).splitlines() if line.startswith(("set-id", "capable"))]
    return found[0] if found else ""


@case("give a file capabilities", "capabilities + seccomp")
def file_capabilities(scene: Scene) -> str:
    script = """
import shutil
shutil.copy("/bin/sh", "/workspace/" + T)
attempt(lambda: os.setxattr("/workspace/" + T, "security.capability", struct.pack("<5I", 0x02000001, 0x1fffff, 0, 0, 0)))
"""
    scene.said(script)
    file = scene.box.upper / scene.mark
    return "the file has capabilities" if file.exists() and "security.capability" in os.listxattr(file) else ""


@case("leave a set-id program in the working set for a user of the host", "closed folders")
def set_id_left(scene: Scene) -> str:
    scene.said("import shutil\nshutil.copy('/bin/sh', '/workspace/' + T)\nos.chmod('/workspace/' + T, 0o6755)\n")
    file = scene.box.upper / scene.mark
    # A local user of the host, who does not know what he runs.
    with contextlib.suppress(PermissionError, FileNotFoundError):
        done = subprocess.run([str(file), "-p", "-c", "id -u"], user=65534, group=65534, extra_groups=(), capture_output=True, text=True, check=False)
        return f"a user of the host ran it as {done.stdout.strip()}"
    return ""


@case("have the host end others first when memory runs out")
def oom_score(scene: Scene) -> str:
    with scene.attack("for pid in ('self', '1'): attempt(lambda: open(f'/proc/{pid}/oom_score_adj', 'w').write('-1000'))\nhold()\n"):
        for pid in scene.box.processes():
            with contextlib.suppress(OSError):
                score = int(pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii"))
                if score < 0:
                    return f"its score is {score}: the host would lose others first"
    return ""
