# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Phase network as far as no engine is needed: what egress is told, what sandboxes get, pins, and the machine's own registries."""

from __future__ import annotations

import base64
import json
import socket
import threading
import typing as t
from pathlib import Path

import modules
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import allowlist, dns_pins, frames, network, registries, run, seal, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.registries import Found
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.sandboxes import Host
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.workset import WorkingSet

RULE = {"host": "api.example.org"}
MIRROR = {"host": "mirror.example.org", "scheme": "http", "ports": [80], "allow_private": True, "paths": ["/debian"]}


@pytest.fixture
def at(tmp_path: Path) -> Places:
    """Places of a host with a key, and nothing else."""
    made = Places(str(tmp_path / "home"), str(tmp_path / "data"), str(tmp_path / "run"))
    seal.ensure_key(Path(made.host_key))
    return made


def document(**change: t.Any) -> dict[str, t.Any]:
    given: dict[str, t.Any] = {
        "groups": {},
        "sandboxes": {"box": {"rules": [RULE]}},
        "declared": ["box", "other"],
        "fetched": None,
        "resolvers": ["9.9.9.9"],
        "token_ports": [],
        "pins": {},
    }
    return network.document(**{**given, **change})


@pytest.mark.parametrize(
    ("change", "sandboxes"),
    [
        ({}, {"box": {"rules": [RULE]}, "other": {}}),
        ({"sandboxes": {"box": None}}, {"box": {}, "other": {}}),
        # Where no name is to be resolved, nobody needs a resolver.
        ({"sandboxes": {}, "resolvers": []}, {"box": {}, "other": {}}),
        ({"fetched": [MIRROR]}, {"box": {"rules": [RULE], "groups": ["registries"]}, "other": {"groups": ["registries"]}}),
        (
            {"fetched": [], "groups": {"api": [RULE]}, "sandboxes": {"box": {"groups": ["api"]}}},
            {"box": {"groups": ["api", "registries"]}, "other": {"groups": ["registries"]}},
        ),
    ],
)
def test_every_declared_sandbox_has_a_list_of_its_own(change: dict[str, t.Any], sandboxes: dict[str, t.Any]) -> None:
    made = document(**change)
    assert made["sandboxes"] == sandboxes
    assert allowlist.parse(made, ()).sandboxes.keys() == {"box", "other"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sandboxes": {"gone": {}}}, ["sandbox gone: has rules, and is not declared in sandboxes.yml"]),
        ({"fetched": [], "groups": {"registries": []}}, ["group registries: this name is kept"]),
        ({"token_ports": [0, 65536]}, ["network_token_ports: 0 is not a port", "network_token_ports: 65536 is not a port"]),
        ({"resolvers": []}, ["network_resolvers: this machine has no resolver but its own loopback's: name some"]),
        ({"resolvers": [], "sandboxes": {}, "token_ports": [443]}, ["network_resolvers: this machine has no resolver"]),
        ({"resolvers": ["dns.example.org"]}, ["network_resolvers: 'dns.example.org' is not an IPv4 address"]),
        ({"resolvers": ["[2600::1]"]}, ["network_resolvers: '[2600::1]' is not an IPv4 address"]),
        ({"resolvers": ["9.9.9.9:0"]}, ["network_resolvers: '9.9.9.9:0' has no port from 1 to 65535"]),
        ({"sandboxes": {"box": {"rules": [{"host": "*"}]}}}, ["sandbox box, rule 1 (*): * stands only before a dot"]),
        ({"sandboxes": {"box": {"rules": [{"host": "a.example\n"}]}, "gone": {"rules": [{"host": "org"}]}}}, ["sandbox gone: ", "sandbox box", "sandbox gone"]),
        (
            {"fetched": [MIRROR], "sandboxes": {"box": {"rules": [{**MIRROR, "allow_private": False}]}}},
            ["registries/mirror.example.org:80 and box/mirror.example.org:80 contradict: allow_private"],
        ),
    ],
)
def test_what_cannot_be_meant(change: dict[str, t.Any], said: list[str]) -> None:
    with pytest.raises(allowlist.RulesError) as caught:
        document(**change)
    assert [problem[: len(start)] for problem, start in zip(caught.value.problems, said, strict=True)] == said
    assert not any("\n" in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"etc/resolv.conf": "nameserver 10.0.0.2\nnameserver 9.9.9.9\nsearch example.org\n"}, ["10.0.0.2", "9.9.9.9"]),
        ({"etc/resolv.conf": "nameserver 127.0.0.53\n", "run/systemd/resolve/resolv.conf": "nameserver 10.0.0.2\n"}, ["10.0.0.2"]),
        ({"etc/resolv.conf": "# none\nnameserver fe80::1%eth0\nnameserver 10.0.0.2\n"}, ["10.0.0.2"]),
        ({"etc/resolv.conf": "nameserver 127.0.0.1\nnameserver ::1\n"}, []),
        ({"etc/resolv.conf": "nameserver 2600::1\n"}, []),
        ({}, []),
    ],
)
def test_resolvers_of_the_machine(tmp_path: Path, files: dict[str, str], found: list[str]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    assert network.machine_resolvers(str(tmp_path)) == found


def test_what_a_sandbox_gets() -> None:
    places = Places("/home", "/data", "/run/d")
    env = {"sandboxes": {"box": {"image": "x", "uid": 1, "gid": 1, "memory": 1, "nano_cpus": 1, "pids": 1, "open_files": 1, "file_size": 1, "shm_size": 1}}}
    whole = stack.merge([env, network.part(["box", "gone"], places, {"PIP_INDEX_URL": "https://pip.example.org"})])
    assert list(whole) == ["box"]
    body = stack.container("box", whole["box"], "{}")
    assert body["HostConfig"]["NetworkMode"] == "none"
    assert body["HostConfig"]["Mounts"][0] == {
        "Type": "bind", "Source": "/run/d/egress/sandboxes/box", "Target": "/run/guardrails/egress", "ReadOnly": True,
    }  # fmt: skip
    assert body["Entrypoint"][-1] == "3128=/run/guardrails/egress/egress.sock"
    assert {"https_proxy=http://127.0.0.1:3128", "NO_PROXY=127.0.0.1,localhost,::1", "PIP_INDEX_URL=https://pip.example.org"} <= set(body["Env"])


def test_a_throw_away_sandbox_asks_as_the_one_whose_shape_it_has() -> None:
    places = Places("/home", "/data", "/run/d")
    accounts = {"bind": f"{places.sandbox('box')}/passwd", "target": "/etc/passwd"}
    shape = {"image": "x", "mounts": [accounts, *network.part(["box"], places, {})["sandboxes"]["box"]["mounts"]], "forwards": {"3128": network.SOCKET}}
    made = run._reshaped(Host(Docker(), places), "box", shape, WorkingSet(places, "box.1", "/srv/other", 1, 1, 1 << 30))
    binds = [(mount["bind"], mount["target"]) for mount in made["mounts"] if "bind" in mount]
    assert binds == [(f"{places.sandbox('box.1')}/passwd", "/etc/passwd"), ("/run/d/egress/sandboxes/box", "/run/guardrails/egress")]
    assert made["forwards"] == shape["forwards"]


# -- registries


@pytest.mark.parametrize(
    ("found", "private", "rules"),
    [
        (Found(), False, []),
        (
            Found(apt=("http://mirror.example.org/debian", "http://mirror.example.org/security/")),
            True,
            [{**MIRROR, "paths": ["/debian", "/security"]}],
        ),
        (Found(apt=("file:/srv/mirror", "cdrom:[x]/")), False, []),
        (
            Found(apt=("https://mirror.example.org:8443/debian",)),
            False,
            [{"host": "mirror.example.org", "scheme": "https", "ports": [8443], "allow_private": False}],
        ),
        (
            Found(apt=("http://all.example.org/debian",), npm=("http://all.example.org/npm/",)),
            False,
            [{"host": "all.example.org", "scheme": "http", "ports": [80], "allow_private": False, "paths": ["/"]}],
        ),
        (
            Found(pip=("https://u:p@pip.example.org/simple",), npm=("https://npm.example.org/",)),
            False,
            [{"host": f"{tool}.example.org", "scheme": "https", "ports": [443], "allow_private": False} for tool in ("npm", "pip")],
        ),
    ],
)
def test_rules_of_registries(found: Found, private: bool, rules: list[dict[str, t.Any]]) -> None:
    made = registries.rules(found, lambda _name, _port: private)
    assert made == rules
    assert document(fetched=made)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Found(), {}),
        (Found(pip=("https://a.example.org/simple", "http://b.example.org/simple")),
         {"PIP_INDEX_URL": "https://a.example.org/simple", "PIP_EXTRA_INDEX_URL": "http://b.example.org/simple", "PIP_TRUSTED_HOST": "b.example.org"}),
        (Found(pip=("https://u:secret@a.example.org/simple",), npm=("https://u:secret@n.example.org/",)), {}),
        (Found(npm=("https://n.example.org/",)), {"NPM_CONFIG_REGISTRY": "https://n.example.org/"}),
    ],
)  # fmt: skip
def test_what_sandboxes_are_told_of_registries(found: Found, told: dict[str, str]) -> None:
    assert registries.environment(found) == told


@pytest.mark.parametrize(("name", "leads"), [("10.1.2.3", True), ("93.184.216.34", False)])
def test_private(name: str, leads: bool) -> None:
    assert registries.private(name, 443) is leads


def test_a_registry_that_leads_nowhere() -> None:
    with pytest.raises(ValueError, match="network_registries: nowhere.invalid, which this machine fetches packages from, cannot be resolved"):
        registries.private("nowhere.invalid", 443)


# -- pins


def pin(at: Places, **options: t.Any) -> dict[str, t.Any]:
    given = {"home": at.home, "data": at.data, "run": at.run, "name": "api.example.org", "reason": "a test"}
    return modules.run("dns_pin", **{**given, **options})


def test_pins_are_sealed(at: Places) -> None:
    first = pin(at, addresses=["93.184.216.35", "93.184.216.34"])
    assert (first["changed"], first["addresses"]) == (True, ["93.184.216.34", "93.184.216.35"])
    assert not pin(at, addresses=["93.184.216.34", "93.184.216.35"])["changed"]
    assert pin(at)["addresses"] == ["93.184.216.34", "93.184.216.35"]
    assert pin(at, name="API.example.org.", addresses=["93.184.216.34"], check=True)["changed"]
    assert dns_pins.read(at) == {"api.example.org": ["93.184.216.34", "93.184.216.35"]}
    assert pin(at, name="b.example.org", addresses=["10.1.2.3"])["changed"]
    assert pin(at, state="absent")["changed"]
    assert not pin(at, state="absent")["changed"]
    assert dns_pins.read(at) == {"b.example.org": ["10.1.2.3"]}


def test_pins_that_were_tampered_with_are_refused(at: Places) -> None:
    pin(at, addresses=["93.184.216.34"])
    envelope = json.loads(dns_pins.path(at).read_bytes())
    payload = seal.payload(envelope).replace(b"93.184.216.34", b"93.184.216.35")
    dns_pins.path(at).write_text(json.dumps({**envelope, "payload": base64.b64encode(payload).decode()}), encoding="ascii")
    done = pin(at, addresses=["93.184.216.36"])
    assert done["failed"]
    assert str(dns_pins.path(at)) in done["msg"]
    assert "\n" not in done["msg"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "10.1.2.3"}, "name: '10.1.2.3' is an address"),
        ({"name": "a b"}, "name: 'a b' has a blank"),
        ({"addresses": ["x"]}, "addresses: 'x' is not an address"),
        ({"addresses": ["127.0.0.1"]}, "addresses: 127.0.0.1 is a loopback address"),
        ({"addresses": ["169.254.169.254"]}, "addresses: 169.254.169.254 is a metadata address"),
        ({"addresses": ["93.184.216.34"], "reason": " "}, "reason: is empty"),
    ],
)
def test_pins_that_cannot_be_meant(at: Places, options: dict[str, t.Any], said: str) -> None:
    done = pin(at, **options)
    assert (done["failed"], done["msg"][: len(said)]) == (True, said)
    assert dns_pins.read(at) == {}


# -- egress, asked


class Egress:
    """Answers commands on an ``admin.sock`` from a table, and keeps what it was asked."""

    def __init__(self, at: Places, answers: dict[str, dict[str, t.Any]]) -> None:
        folder = Path(at.run, "egress")
        folder.mkdir(parents=True)
        self.asked: list[dict[str, t.Any]] = []
        self._answers = answers
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(folder / "admin.sock"))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _address = self._socket.accept()
            with connection:
                stream = frames.Frames()
                while data := connection.recv(65536):
                    for text in stream.feed(data):
                        self.asked.append(frames.decode(text))
                        connection.sendall(frames.encode(self._answers[self.asked[-1]["command"]]))


def test_a_name_is_asked_for_when_nobody_tells_its_addresses(at: Places) -> None:
    egress = Egress(at, {"resolve": {"name": "api.example.org", "addresses": ["93.184.216.34"]}})
    assert pin(at)["changed"]
    assert not pin(at)["changed"]
    assert not pin(at, state="renewed")["changed"]
    assert egress.asked == [{"command": "resolve", "name": "api.example.org"}] * 2


def test_tokens(at: Places) -> None:
    egress = Egress(at, {"mint": {"id": "1", "secret": "s", "until": 2}, "tokens": {"tokens": [{"id": "1"}]}, "revoke": {}})
    base = {"home": at.home, "data": at.data, "run": at.run, "reason": "a test"}
    asked = {**base, "sandbox": "box", "rule": {"host": "a.example.org"}, "uses": 1}
    assert modules.run("egress_token", check=True, **asked)["changed"]
    assert egress.asked == []
    assert modules.run("egress_token", **asked)["secret"] == "s"
    assert egress.asked == [{"command": "mint", "sandbox": "box", "rule": {"host": "a.example.org"}, "seconds": 3600, "uses": 1, "reason": "a test"}]
    gone = [modules.run("egress_token", check=check, state="absent", id=this, **base)["changed"] for this, check in (("1", True), ("1", False), ("2", False))]
    assert gone == [True, True, False]
    assert [message for message in egress.asked if message["command"] == "revoke"] == [{"command": "revoke", "id": "1", "reason": "a test"}]
