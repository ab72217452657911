# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's side of a working set: it hashes, bundles, verifies and removes what a hostile process wrote."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import typing as t
from unittest import mock

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import bundle, changes, run, seal, status
from security.arena import ROOT
from security.cases import Scene, case


def _work(scene: Scene, script: str) -> run.Result:
    """Let *script* run as an operator's command over the tree and return what came of it."""
    code = "import os, stat, socket, contextlib\nos.chdir('/workspace')\nT = os.environ['T']\nHOST = os.environ['HOST_FILE']\n" + script
    argv = ["env", f"T={scene.mark}", f"HOST_FILE={scene.arena.file}", "python3", "-c", code]
    return scene.run(argv)


def _applied(scene: Scene, made: run.Result) -> pathlib.Path:
    """Apply the bundle to a fresh copy of the originals and return it."""
    copy = scene.arena.folder / f"copy-{scene.mark}"
    shutil.copytree(scene.arena.tree, copy, symlinks=True)
    bundle.apply(made.bundle, str(copy), seal.load_public(scene.arena.places.public_key), owner=(0, 0))
    return copy


def _holds(folder: pathlib.Path, secret: str) -> str:
    """Return the file below *folder* that holds *secret*; links are not followed."""
    for above, _folders, names in os.walk(folder):
        for name in names:
            path = pathlib.Path(above, name)
            if not path.is_symlink() and path.is_file() and secret.encode() in path.read_bytes():
                return str(path)
    return ""


def _read(scene: Scene, out: pathlib.Path) -> None:
    """Let the host read the working set into *out*, as it does for a bundle; or as a program would that follows links."""
    box = scene.box
    if "reader that does not follow" in scene.lacks:
        with contextlib.suppress(OSError):
            shutil.copytree(box.upper, out)
        return

    def tool(_argv: list[str], stdin: t.Iterable[bytes], _stdout: t.BinaryIO) -> int:
        for _chunk in stdin:
            pass
        return 137

    with contextlib.suppress(changes.ChangesError, bundle.BundleError):
        found = changes.read(str(box.upper), box.working_set.lower)
        bundle.write(str(out), found, str(box.upper), box.working_set.lower, tool, {}, lambda subjects, _facts: dict(subjects))


LINKS = """
os.makedirs("/workspace/" + T)
os.chdir("/workspace/" + T)
os.symlink(E["HOST_FILE"], "file")
os.symlink(os.path.dirname(E["HOST_FILE"]), "folder")
os.symlink("../" * 12 + E["HOST_FILE"][1:], "relative")
hold()
"""


@case("have the host read its own secret through links", "reader that does not follow")
def links(scene: Scene) -> str:
    out = scene.arena.folder / f"out-{scene.mark}"
    with scene.attack(LINKS):
        _read(scene, out)
    scene.box.emptied(scene.mark)
    place = _holds(out, scene.arena.secret)
    return f"{place} holds it" if place else ""


SWAP = """
os.makedirs("/workspace/" + T + "/d", exist_ok=True)
os.chdir("/workspace/" + T)
open("d/secret.txt", "w").write("harmless")
open("f", "w").write("harmless")
os.symlink(os.path.dirname(E["HOST_FILE"]), "l")
os.symlink(E["HOST_FILE"], "lf")
print("HOLD", flush=True)
while True:
    for one, other in ((b"d", b"l"), (b"f", b"lf")):
        libc.renameat2(-100, one, -100, other, 2)
"""


@case("swap a folder for a link while the host reads it", "reader that does not follow")
def race(scene: Scene) -> str:
    # The end of the run, which would end the attack, is left out: the reader alone must hold.
    out = scene.arena.folder / f"out-{scene.mark}"
    out.mkdir()
    with scene.attack(SWAP):
        for number in range(100):
            _read(scene, out / str(number))
    scene.box.emptied(scene.mark)
    place = _holds(out, scene.arena.secret)
    return f"{place} holds the secret of the host" if place else ""


@case("swap a folder for a link while the host removes the sandbox")
def race_of_removal(scene: Scene) -> str:
    victim = scene.arena.folder / f"victim-{scene.mark}"
    victim.mkdir()
    (victim / "file").write_text("x", encoding="ascii")
    with scene.attack(SWAP, more={"HOST_FILE": str(victim / "file")}):
        copy = scene.arena.folder / f"layer-{scene.mark}"
        copy.mkdir()
        # What the attack swaps is moved to where the host removes it by the same program.
        subprocess.run(["cp", "-a", str(scene.box.upper), str(copy)], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", "--", str(copy)], capture_output=True, check=False)
    return "" if (victim / "file").exists() else "a file outside was removed"


@case("go on writing while the host bundles", "sweep")
def after_the_end(scene: Scene) -> str:
    written: list[str] = []
    read = changes.read

    def slow(upper: str, lower: str) -> list[changes.Change]:
        first = {path.name: path.stat().st_size for path in pathlib.Path(upper).glob(f"{scene.mark}*")}
        threading.Event().wait(0.4)
        written.extend(name for name, size in first.items() if pathlib.Path(upper, name).stat().st_size != size)
        return read(upper, lower)

    script = """
for number in range(20):
    if os.fork() == 0:
        os.setsid()
        import signal, time
        for one in range(1, 65):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(one, signal.SIG_IGN)
        for fd in range(3):
            os.close(fd)
        with open(T + str(number), "a") as file:
            while True:
                file.write("x")
                file.flush()
                time.sleep(0.01)
"""
    with mock.patch.object(changes, "read", slow), contextlib.suppress(changes.ChangesError):
        _work(scene, script)
    return f"{len(written)} processes went on" if written else ""


@case("have hooks, configuration and start files executed by whoever handles the bundle", "git kept away", source="claude-code-devcontainer #42")
def planted(scene: Scene) -> str:
    marker = scene.arena.folder / f"ran-{scene.mark}"
    made = _work(
        scene,
        f"""
import subprocess
subprocess.run(["git", "init", "-q", "."], check=True)
run = "touch {marker}"
for name in ("pre-commit", "post-checkout", "post-index-change", "applypatch-msg", "pre-auto-gc"):
    with open(".git/hooks/" + name, "w") as file:
        file.write("#!/bin/sh\\n" + run + "\\n")
    os.chmod(".git/hooks/" + name, 0o755)
with open(".git/config", "a") as file:
    file.write('[core]\\n\\tfsmonitor = "' + run + '; false"\\n[filter "x"]\\n\\tclean = "' + run + '"\\n')
    file.write('\\tsmudge = "' + run + '"\\n[diff "x"]\\n\\texternal = "' + run + '"\\n')
open(".gitattributes", "w").write("* filter=x diff=x\\n")
for name in (".bashrc", ".profile", ".envrc", "Makefile", "conftest.py", "setup.py", ".vimrc", "package.json"):
    open(name, "w").write(run + "\\n")
""",
    )
    folder, public = made.bundle, seal.load_public(scene.arena.places.public_key)
    found = bundle.verify(folder, public)
    assert found == [], found
    copy = _applied(scene, made)
    if "git kept away" in scene.lacks:
        subprocess.run(["git", "-C", str(copy), "status"], capture_output=True, check=False)
    ran = marker.exists()
    marker.unlink(missing_ok=True)
    if ran:
        return "a command of the sandbox ran on the host"
    missing = {".git/hooks/pre-commit", ".git/config", ".gitattributes", ".bashrc", ".envrc", "Makefile"} - set(made.flagged)
    return f"{min(missing)} is not flagged" if missing else ""


ODD = """
import sys
names = [b"new\\nline", b"carriage\\rreturn", b"back\\\\slash", b"quote\\"s'", b"\\x1b]0;title\\x07", b"\\x1b[2J", b"\\xff\\xfe", b"-rf", b"--", b"*",
         b"x" * 255, "\\u202eevil".encode(), b" ", b"...", b"spare", b".by-sha256", b"manifest.jsonl", b"seal.json", b"a.sha256", b"tab\\t", b"\\x7f",
         b"{{ 7 * 7 }}", b"$(id)"]
for name in names:
    with open(name, "w") as file:
        file.write("content of " + repr(name))
    with contextlib.suppress(OSError):
        os.mkdir(b"d" + name[:200])
        open(b"d" + name[:200] + b"/" + name[:250], "w").close()
deep = b"/".join([b"n" * 200] * 19)
os.makedirs(deep)
open(deep + b"/leaf", "w").write("deep")
with contextlib.suppress(OSError):  # gVisor makes none on the host
    os.mkfifo("fifo")
with open("sparse", "wb") as file:
    file.truncate(100 << 20)
os.symlink(b"\\xff\\n\\x1b", "odd target")
os.symlink("loop", "loop")
os.chmod("README.md", 0o6777)
"""


@case("names with control characters, links, FIFOs, holes and long paths")
def odd_names(scene: Scene) -> str:
    made = _work(scene, ODD)
    if problems := bundle.verify(made.bundle, seal.load_public(scene.arena.places.public_key)):
        return f"the bundle does not verify: {problems[0]}"
    copy = _applied(scene, made)
    names = os.listdir(os.fsencode(copy))
    lost = {b"new\nline", b"\xff\xfe", b"x" * 255, b"sparse", b"\x1b[2J", *([b"fifo"] if scene.box.runtime == "runc" else [])} - set(names)
    if lost:
        return f"{min(lost)!r} was lost"
    if os.stat(copy / "README.md").st_mode & 0o6000:
        return "a set-id bit came out"
    return ""


@case("sockets and devices in the working set")
def sockets(scene: Scene) -> str:
    made = _work(
        scene,
        "with contextlib.suppress(OSError): os.mknod('null', 0o20666, os.makedev(1, 3))\n"
        "with contextlib.suppress(OSError): socket.socket(socket.AF_UNIX).bind('door')\n",
    )
    with open(f"{made.bundle}/metadata.jsonl", encoding="utf-8") as file:
        carried = {record["path"] for record in map(json.loads, file) if record["carried"] != "no"}
    if found := carried & {"door", "null"}:
        return f"{min(found)} is in the bundle"
    # gVisor makes no socket on the host's disk.
    return "" if "door" in made.not_carried or scene.box.runtime == "gvisor" else "a socket is not named"


@case("so many folders in each other that the host cannot remove them, and no run can begin")
def too_deep_to_remove(scene: Scene) -> str:
    with contextlib.suppress(changes.ChangesError):
        _work(scene, "for _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')\n")
    left = set(os.listdir(scene.arena.places.sandboxes)) - scene.arena.boxes
    if left:
        return f"{min(left)} is left behind"
    return "" if run.reap(scene.box.host) == [] else "the next run has to clear up"


@case("so long paths that the host's memory is filled by reading them")
def too_long_to_hold(scene: Scene) -> str:
    # In a process of its own, whose memory can be told: 14,000 folders in each other hold 110 MB of paths.
    script = "os.makedirs('/workspace/' + T)\nos.chdir('/workspace/' + T)\nfor _ in range(14000):\n os.mkdir('d')\n os.chdir('d')\nhold()\n"
    with scene.attack(script, seconds=60):
        code = (
            "import sys\nsys.path.insert(0, sys.argv[1])\n"
            "from ansible_collections.dockersandbox.guardrails.plugins.module_utils import changes\n"
            "try:\n    changes.read(sys.argv[2], sys.argv[3])\nexcept changes.ChangesError as error:\n    print(error, file=sys.stderr)\n"
            # What the kernel tells of its resources has the peak of who started it in it.
            "print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) >> 10)\n"
        )
        argv = [sys.executable, "-c", code, str(ROOT / ".collections"), str(scene.box.upper), scene.box.working_set.lower]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    scene.box.emptied(scene.mark)
    taken = int(done.stdout)
    return f"{taken} MiB taken" if taken > 512 else ""


@case("plant locks and seals that the host takes for its own")
def locks(scene: Scene) -> str:
    before = status.verify(scene.box.host)
    made = _work(scene, "for name in ('a.sha256', 'seal.json', 'b.seal.json', 'c.sha256'):\n    open(name, 'w').write('0' * 64 + '  c\\n')\n")
    script = """
os.makedirs("/workspace/" + T)
os.chdir("/workspace/" + T)
open("a.sha256", "w").write(T)
attempt(lambda: os.mkfifo("b.sha256"))
os.symlink("/etc/shadow", "c.sha256")
hold()
"""
    with scene.attack(script):
        after = status.verify(scene.box.host)
    scene.box.emptied(scene.mark)
    shutil.rmtree(made.bundle)
    return f"verify says: {after.problems[0]}" if after.problems != before.problems else ""


@case("forge the overlay's own attributes: opaque, redirect, metacopy", "seccomp + capabilities")
def attributes(scene: Scene) -> str:
    script = """
for path in ("/workspace/data", "/workspace/README.md"):
    os.utime(path)
    for name in (*("trusted.overlay." + word for word in ("opaque", "redirect", "metacopy", "origin")), "user.overlay.opaque", "security.x"):
        attempt(lambda: os.setxattr(path, name, b"y"))
hold()
"""
    found = []
    with scene.attack(script):
        for path in (scene.box.upper / "data", scene.box.upper / "README.md"):
            for name in os.listxattr(path, follow_symlinks=False) if path.exists() else ():
                # What users may label, an overlay of root does not obey.
                if not name.startswith("user.") and os.getxattr(path, name, follow_symlinks=False) == b"y":
                    found.append(f"{path.name} has {name}")
    return min(found, default="")
