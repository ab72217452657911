# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine, the keys and records of the host, and whatever listens on it."""

from __future__ import annotations

import pathlib

from security.cases import Scene, case


@case("list containers through an engine's socket", "engine outside + user", source="gh-aw-firewall no-docker.test.ts")
def engine_socket(scene: Scene) -> str:
    identity = scene.arena.engine.call("GET", "/info")["ID"]
    script = """
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", "/proc/1/root/run/docker.sock"):
    def ask():
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(3)
            one.connect(path)
            one.sendall(b"GET /info HTTP/1.0\\r\\n\\r\\n")
            while chunk := one.recv(65536):
                os.write(1, chunk)
    attempt(ask)
"""
    return "the engine answered" if identity in scene.said(script) else ""


@case("connect to what listens on the host's loopback", "network")
def host_loopback(scene: Scene) -> str:
    before = len(scene.arena.listener.hits)
    script = """
for address in ("127.0.0.1", "172.17.0.1", "host.docker.internal", "169.254.169.254", "::1", "localhost"):
    for port in (int(E["PORT"]), 2375, 2376):
        attempt(lambda: socket.create_connection((address, port), 1))
"""
    scene.said(script)
    hits = scene.arena.listener.hits[before:]
    return f"{len(hits)} connections arrived" if hits else ""


@case("connect to an abstract socket of the host", "network")
def host_abstract_socket(scene: Scene) -> str:
    before = len(scene.arena.listener.hits)
    script = """
def knock(kind):
    with socket.socket(socket.AF_UNIX, kind) as one:
        one.connect("\\0" + E["ABSTRACT"])
attempt(lambda: knock(socket.SOCK_STREAM))
print([line.split()[-1] for line in open("/proc/net/unix") if "@" in line])
"""
    said = scene.said(script)
    hits = scene.arena.listener.hits[before:]
    return "a connection arrived" if hits else "its name was listed" if scene.arena.listener.abstract in said else ""


@case("read and change the host's key, seals, records and bundles", "processes + capabilities + seccomp")
def records(scene: Scene) -> str:
    key = pathlib.Path(scene.arena.places.host_key).read_text(encoding="ascii")
    script = """
places = {E["HOST_KEY"], E["HOST_RECORDS"]}
for root in ("", "/proc/1/root", "/proc/self/root", "/workspace/../../../../..", *glob.glob("/proc/[0-9]*/root")[:200], *glob.glob("/proc/[0-9]*/cwd")[:200]):
    for place in places:
        with contextlib.suppress(OSError):
            print(open(root + place).read(), flush=True)
        with contextlib.suppress(OSError):
            open(root + place + "." + T, "w").close()
"""
    secret = key.splitlines()[1]
    uids = pathlib.Path(scene.arena.places.uids)
    said = scene.said(script, more={"HOST_RECORDS": str(uids)})
    planted = [path for folder in (pathlib.Path(scene.arena.places.host_key).parent, uids.parent) for path in folder.glob(f"*{scene.mark}")]
    for path in planted:
        path.unlink()
    if secret in said:
        return "the host's private key was printed"
    return f"{planted[0]} was planted" if planted else ""
