# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Phase ``network`` put together: what egress is told, what each sandbox gets, and whether both do what they are for."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import allowlist, chain, hosts, recorder, registries, services, stack, wall
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host

SERVICE = "egress"
PORT = 3128
SOCKET = f"{services.SOCKETS}/{SERVICE}/egress.sock"
_PROXY = f"http://127.0.0.1:{PORT}"
_HERE = "127.0.0.1,localhost,::1"
# Programs disagree on the case. Node's own fetch looks at them only when it is told to.
ENVIRONMENT = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _PROXY),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), _HERE),
    "NODE_USE_ENV_PROXY": "1",
}
_RESOLV = ("etc/resolv.conf", "run/systemd/resolve/resolv.conf")
_PATIENCE = 10  # seconds for doors to open, and for a denial to be on record
_METADATA = "169.254.169.254"

# Run in a sandbox: prints the first line of the answer to a CONNECT.
_ASK = """
import socket, sys
made = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
made.sendall(f"CONNECT {sys.argv[2]}:443 HTTP/1.1\\r\\nHost: {sys.argv[2]}:443\\r\\n\\r\\n".encode())
print(made.recv(4096).decode("latin-1").partition("\\r\\n")[0])
"""
# Run in the network of a service: prints each of its arguments, address and port, that could be connected to.
_REACH = """
import socket, sys
for address in sys.argv[1:]:
    host, _colon, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
        print(address)
    except OSError:
        pass
"""


def document(
    groups: dict[str, t.Any],
    sandboxes: dict[str, t.Any],
    declared: t.Collection[str],
    fetched: t.Sequence[dict[str, t.Any]] | None,
    resolvers: t.Sequence[str],
    token_ports: t.Sequence[int],
    pins: dict[str, list[str]],
) -> dict[str, t.Any]:
    """Return what egress is told. *fetched* are the rules for the machine's own registries, None when they are not wanted.

    Raises RulesError with every problem there is, each in one line.
    """
    problems = [f"sandbox {name}: has rules, and is not declared in sandboxes.yml" for name in sorted(set(sandboxes) - set(declared))]
    if fetched is not None and registries.GROUP in groups:
        problems.append(f"group {registries.GROUP}: this name is kept for what network_registries opens: choose another")
    problems += [f"network_token_ports: {port!r} is not a port" for port in token_ports if not 1 <= port <= 65535]
    for server in resolvers:
        try:
            address = hosts.authority(server, 53)[0].address
            if address is None or address.version != 4:
                raise ValueError("is not an IPv4 address, with a port where it is not 53")
        except ValueError as error:
            problems.append(f"network_resolvers: {server!r} {error}")
    all_groups = groups if fetched is None else {**groups, registries.GROUP: list(fetched)}
    of_each: dict[str, t.Any] = {}
    for name in sorted(declared):
        own = sandboxes.get(name) or {}
        if fetched is not None and isinstance(own, dict) and isinstance(own.get("groups", []), list):
            own = {**own, "groups": [*own.get("groups", []), registries.GROUP]}
        of_each[name] = own
    made = {"groups": all_groups, "sandboxes": of_each, "resolvers": list(resolvers), "token_ports": sorted(token_ports), "pins": pins}
    try:
        # Over which suffixes anybody may register names, the service knows.
        policy = allowlist.parse({**made, "sandboxes": {**sandboxes, **of_each}}, ())
        named = any(rule.host.address is None for permitted in policy.sandboxes.values() for rule in permitted.rules)
        if not resolvers and (named or token_ports):
            problems.append("network_resolvers: this machine has no resolver but its own loopback's: name some")
    except allowlist.RulesError as error:
        problems += error.problems
    if problems:
        raise allowlist.RulesError(problems)
    return made


def machine_resolvers(root: str = "/") -> list[str]:
    """Return the resolvers of this machine that can be reached from a network of its own: those that are not on its loopback."""
    for name in _RESOLV:
        with contextlib.suppress(OSError):
            words = [line.split() for line in Path(root, name).read_text(encoding="utf-8", errors="replace").splitlines()]
            found = []
            for server in (word[1] for word in words if len(word) > 1 and word[0] == "nameserver"):
                with contextlib.suppress(ValueError):
                    address = hosts.parse(server).address
                    if address is not None and address.version == 4 and hosts.kind(address) != "loopback":
                        found.append(server)
            if found:
                return found
    return []


def part(names: t.Iterable[str], places: Places, environment: t.Mapping[str, str]) -> dict[str, t.Any]:
    """Return what phase ``network`` says of the sandboxes *names*: a port, the socket behind it, and who is told of it."""
    folder = services.sandboxes_folder(places, SERVICE)
    return {
        "sandboxes": {
            name: {
                "forwards": {str(PORT): SOCKET},
                "mounts": [{"bind": f"{folder}/{name}", "target": f"{services.SOCKETS}/{SERVICE}"}],
                "environment": {**ENVIRONMENT, **environment},
            }
            for name in names
        }
    }


def problems(host: Host, described: t.Mapping[str, stack.Description]) -> list[str]:
    """Return in what egress and the walls around it fail, tried from within each sandbox and from egress's own network."""
    found = []
    asked = {}
    for name, description in described.items():
        if str(PORT) not in description["forwards"]:
            continue
        asked[name] = f"verify-{secrets.token_hex(4)}.{name}.invalid"
        said = _asked(host, name, description, asked[name])
        if " 403 " not in said:
            found.append(f"sandbox {name}: what no rule allows is answered with {said or 'nothing'!r}, not denied")
    found += [f"sandbox {name}: a denial is not on record" for name, nowhere in asked.items() if not _on_record(host.places, nowhere)]
    return [*found, *_wall_problems(host)]


def _asked(host: Host, name: str, description: stack.Description, nowhere: str) -> str:
    deadline = time.monotonic() + _PATIENCE
    while True:
        _code, said = host.execute(name, description, ["/usr/bin/python3", "-I", "-S", "-c", _ASK, str(PORT), nowhere], timeout=30)
        lines = said.decode("utf-8", "replace").splitlines() or [""]
        # The door may not be open yet.
        if lines[-1].startswith("HTTP/") or time.monotonic() > deadline:
            return lines[-1]
        time.sleep(0.2)


def _on_record(places: Places, text: str) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if text.encode() in Path(places.logs, chain.LIVE).read_bytes():
                return True
        time.sleep(0.2)
    # The live file may just have become a segment.
    return any(text.encode() in line for line in chain.lines(Path(places.logs)))


def _wall_problems(host: Host) -> t.Iterator[str]:
    inspected = host.docker.inspect(services.account(SERVICE))
    if inspected is None or not inspected["State"]["Pid"]:
        yield "service egress: does not run"
        return
    gateway = inspected["NetworkSettings"]["Networks"][services.account(SERVICE)]["Gateway"]
    with socket.socket() as listener:
        listener.bind((gateway, 0))
        listener.listen(8)
        own = f"{gateway}:{listener.getsockname()[1]}"
        command = ["nsenter", "--target", str(inspected["State"]["Pid"]), "--net", sys.executable, "-I", "-c", _REACH, own, f"{_METADATA}:80"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"service egress: its network could not be tried: {' '.join(done.stderr.split())[-200:]}"
    for reached in done.stdout.split():
        yield f"service egress: {reached} can be reached from its network; see: nft list table inet {wall.table(SERVICE)}"


def changed_pins(host: services.Services, pins: dict[str, list[str]], check: bool) -> services.Converged:
    """Tell egress of other *pins*, when there is one."""
    path = services.config_path(host.places, SERVICE)
    description = services.described(host.places).get(SERVICE)
    if description is None or not path.exists():
        return services.Converged([], [])
    wanted = {key: value for key, value in description.items() if key not in ("uid", "gid")}
    return host.converge(SERVICE, wanted, {**json.loads(path.read_bytes()), "pins": pins}, False, check)


def command(places: Places, message: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what egress answers to root. Raises RecorderError; a refusal is one."""
    with recorder.Client(recorder.admin_socket(places.run, SERVICE), 30) as client:
        return client.command(message)
