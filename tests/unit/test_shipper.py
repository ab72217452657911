# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipper: what a target may be, and that heads arrive whole, once, and only where they should."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import pathlib
import socket
import ssl
import threading
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import chain, chain_verify, lock, seal, shipper
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.chain import Link
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

UID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
CERTIFICATE = {"certificate": "/c", "key": "/k"}


@pytest.mark.parametrize(
    ("listed", "made"),
    [
        ([], []),
        ([{"folder": "/mnt/heads"}], [shipper.Target(folder="/mnt/heads")]),
        ([{"server": "logs.example.org"}], [shipper.Target(host="logs.example.org", port=6514)]),
        ([{"server": "192.0.2.1:1", "ca": "/ca"}], [shipper.Target(host="192.0.2.1", port=1, ca="/ca")]),
        ([{"server": "[2001:db8::1]:65535", **CERTIFICATE}], [shipper.Target(host="2001:db8::1", port=65535, **CERTIFICATE)]),
    ],
)
def test_targets(listed: t.Any, made: list[shipper.Target]) -> None:
    assert shipper.targets(listed) == made


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ({}, "logging_ship_to: is not a list of targets"),
        (["/mnt"], "logging_ship_to[0]: a target has a folder, or a server, each a text"),
        ([{}], "logging_ship_to[0]: a target has a folder, or a server with ca, certificate and key, and nothing else"),
        ([{"folder": 1}], "logging_ship_to[0]: a target has a folder, or a server, each a text"),
        ([{"folder": "mnt"}], "logging_ship_to[0]: folder: 'mnt' is not an absolute path"),
        ([{"folder": "/mnt", "server": "x"}], "logging_ship_to[0]: a target has a folder, or a server with ca"),
        ([{"server": "x", "user": "me"}], "logging_ship_to[0]: a target has a folder, or a server with ca"),
        ([{"folder": "/a"}, {"server": "udp://x"}], "logging_ship_to[1]: server: 'udp://x' is not a name or address with a port"),
        ([{"server": "x:65536"}], "logging_ship_to[0]: server: 'x:65536' is not a name or address with a port"),
        ([{"server": "x:0"}], "logging_ship_to[0]: server: 'x:0' is not a name or address with a port"),
        ([{"server": "x", "key": "/k"}], "logging_ship_to[0]: certificate and key come together"),
        ([{"server": "x", "ca": "ca.pem"}], "logging_ship_to[0]: ca: 'ca.pem' is not an absolute path"),
    ],
)
def test_targets_that_cannot_be_meant(listed: t.Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        shipper.targets(listed)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


# -- shipping


class Log:
    """A log of which there is but the head, and a host that ships it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.at = Places(str(folder / "home"), str(folder / "data"), str(folder / "run"))
        for path in (self.at.logs, self.at.data, os.path.dirname(self.at.log_key)):
            os.makedirs(path)
        self.key = seal.generate()
        pathlib.Path(self.at.log_public).write_bytes(self.key.public.pem)

    def head(self, seq: int) -> bytes:
        envelope = chain.head(self.key, Link(seq, f"{seq:064x}", "2026-11-24T10:00:00.000000Z"), UID)
        seal.write(pathlib.Path(self.at.logs, chain.HEAD), envelope)
        return json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode()

    def ships_to(self, *targets: dict[str, str]) -> None:
        shipper.config_path(self.at).parent.mkdir(parents=True, exist_ok=True)
        lock.write_locked(shipper.config_path(self.at), json.dumps({"targets": targets}).encode())


@pytest.fixture
def log(tmp_path: pathlib.Path) -> Log:
    return Log(tmp_path)


def test_without_targets_nothing_is_shipped_and_nothing_is_amiss(log: Log) -> None:
    assert shipper.ship(log.at) == []


def test_a_folder_gets_each_head_once_and_what_lies_there_verifies(log: Log, tmp_path: pathlib.Path) -> None:
    (tmp_path / "mnt").mkdir()
    log.ships_to({"folder": str(tmp_path / "mnt")})
    written = []
    for seq in (1, 2, 7):
        written.append(log.head(seq))
        assert shipper.ship(log.at) == [f"shipped the head at record {seq} to {tmp_path}/mnt"]
        assert shipper.ship(log.at) == []
    (path,) = (tmp_path / "mnt").iterdir()
    assert path.name.endswith(f"-{UID}.heads.jsonl")
    assert path.read_bytes().splitlines() == written
    by = chain.signer(log.at.log_public)
    assert [chain.opened_head(item.envelope, by)[1].seq for item in chain_verify.read_heads(path)] == [1, 2, 7]


@pytest.mark.parametrize("left", [b"", b"{", b'{"payload": "half', b"x" * 5000])
def test_a_line_that_a_crash_has_cut_off_is_taken_away(log: Log, tmp_path: pathlib.Path, left: bytes) -> None:
    (tmp_path / "mnt").mkdir()
    log.ships_to({"folder": str(tmp_path / "mnt")})
    first = log.head(1)
    shipper.ship(log.at)
    (path,) = (tmp_path / "mnt").iterdir()
    path.write_bytes(path.read_bytes() + left)
    second = log.head(2)
    shipper.ship(log.at)
    assert path.read_bytes() == first + b"\n" + second + b"\n"


def test_a_head_of_another_key_is_not_shipped(log: Log, tmp_path: pathlib.Path) -> None:
    log.ships_to({"folder": str(tmp_path)})
    log.key = seal.generate()
    log.head(1)
    with pytest.raises(seal.SealError, match="it is not signed with"):
        shipper.ship(log.at)


def test_one_target_that_fails_keeps_none_from_its_heads(log: Log, tmp_path: pathlib.Path) -> None:
    (tmp_path / "mnt").mkdir()
    log.ships_to({"folder": str(tmp_path / "gone")}, {"folder": str(tmp_path / "mnt")})
    log.head(1)
    with pytest.raises(shipper.ShipError, match=f"^the head of the log was not shipped to {tmp_path}/gone: No such file or directory$"):
        shipper.ship(log.at)
    assert len(list((tmp_path / "mnt").iterdir())) == 1


def test_the_list_of_targets_that_was_tampered_with_is_refused(log: Log, tmp_path: pathlib.Path) -> None:
    log.ships_to({"folder": str(tmp_path)})
    shipper.config_path(log.at).write_text('{"targets": []}', encoding="ascii")
    with pytest.raises(lock.LockError, match=r"shipper\.json: its sha256 is"):
        shipper.ship(log.at)


# -- over TLS


def certificate(folder: pathlib.Path, address: str) -> dict[str, str]:
    """Make a certificate for *address* that signs itself; return the paths of its files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "logs")])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir()
    (folder / "crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    forms = serialization
    (folder / "key").write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()))
    return {"certificate": str(folder / "crt"), "key": str(folder / "key")}


class Server:
    """A syslog server on the loopback: what it was sent, and who sent it."""

    def __init__(self, own: dict[str, str], clients: str = "") -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(own["certificate"], own["key"])
        if clients:
            self.context.load_verify_locations(clients)
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.got: list[bytes] = []
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _address = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), plain, self.context.wrap_socket(plain, server_side=True) as connection:
                text = b""
                while part := connection.recv(4096):
                    text += part
                self.got.append(text)

    def close(self) -> None:
        # It was closed already by a test that looks at what it got.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def serve() -> t.Iterator[t.Callable[..., Server]]:
    servers: list[Server] = []

    def start(*arguments: t.Any) -> Server:
        servers.append(Server(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_server_gets_each_head_once_in_the_frame_of_syslog(log: Log, tmp_path: pathlib.Path, serve: t.Callable[..., Server]) -> None:
    own, client = certificate(tmp_path / "own", "127.0.0.1"), certificate(tmp_path / "client", "127.0.0.9")
    server = serve(own, client["certificate"])
    log.ships_to({"server": server.name, "ca": own["certificate"], **client})
    line = log.head(1)
    assert shipper.ship(log.at) == [f"shipped the head at record 1 to {server.name}"]
    assert shipper.ship(log.at) == []
    log.head(2)
    assert len(shipper.ship(log.at)) == 1
    server.close()
    assert len(server.got) == 2
    length, text = server.got[0].split(b" ", 1)
    assert int(length) == len(text)
    assert text.startswith(b"<109>1 2") and text.endswith(b" dockersandbox - log-head - " + line)


@pytest.mark.parametrize("spoil", ["another certificate", "another name", "no client certificate", "no server"])
def test_a_server_that_does_not_prove_itself_gets_nothing(log: Log, tmp_path: pathlib.Path, serve: t.Callable[..., Server], spoil: str) -> None:
    own = certificate(tmp_path / "own", "127.0.0.9" if spoil == "another name" else "127.0.0.1")
    other = certificate(tmp_path / "other", "127.0.0.1")
    server = serve(own, *([other["certificate"]] if spoil == "no client certificate" else []))
    believed = other if spoil == "another certificate" else own
    log.ships_to({"server": server.name, "ca": believed["certificate"]})
    log.head(1)
    if spoil == "no server":
        server.close()
    with pytest.raises(shipper.ShipError, match=f"^the head of the log was not shipped to {server.name}: "):
        shipper.ship(log.at)
    assert server.got == []
    assert not shipper.state_path(log.at).exists()
