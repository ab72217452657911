# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The heads of the log, carried off the machine, where whoever becomes root here cannot change them.

A head says, signed, how far the log goes and what its last record is: whoever has one finds a log that was written anew, or
cut, from then on. They go to *targets*: a folder on another file system, or a syslog server over TLS.
Sources: RFC 5424 (syslog), RFC 5425 (its transport over TLS).
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import socket
import ssl
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, canonical, chain, lock, seal
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places

PORT = 6514
PATIENCE = 10  # seconds that a server may take for each step
_REFUSAL = 1
_KEYS = ("ca", "certificate", "key")
_SERVER = re.compile(r"(?P<host>[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:(?P<port>[1-9][0-9]{0,4}))?", re.ASCII)
_TAIL = 1 << 16  # bytes, several heads
_PRIORITY = 13 * 8 + 5  # log audit, notice


class ShipError(Exception):
    """Heads that could not be shipped; the text is one line that names the target."""


class Target(t.NamedTuple):
    """Where heads go: *folder*, or *host* and *port* with files in PEM: whom to believe, and who this machine is."""

    folder: str = ""
    host: str = ""
    port: int = PORT
    ca: str = ""
    certificate: str = ""
    key: str = ""

    def __str__(self) -> str:
        return self.folder or f"{self.host}:{self.port}"


def config_path(places: Places) -> Path:
    """Return the file that lists the targets; without it nothing is shipped."""
    return Path(places.home, "configs", "shipper.json")


def state_path(places: Places) -> Path:
    """Return the file that remembers what each server was sent last."""
    return Path(places.data, "shipped.json")


def targets(listed: t.Any) -> list[Target]:
    """Return the targets that ``logging_ship_to`` lists; ValueError in one line for what cannot be meant."""
    if not isinstance(listed, list):
        raise ValueError("logging_ship_to: is not a list of targets")
    return [_target(f"logging_ship_to[{index}]", content) for index, content in enumerate(listed)]


def _target(where: str, content: t.Any) -> Target:
    if not isinstance(content, dict) or any(not isinstance(value, str) for value in content.values()):
        raise ValueError(f"{where}: a target has a folder, or a server, each a text")
    if set(content) == {"folder"}:
        if not os.path.isabs(content["folder"]):
            raise ValueError(f"{where}: folder: {content['folder']!r} is not an absolute path")
        return Target(folder=content["folder"])
    if "server" not in content or not set(content) <= {"server", *_KEYS}:
        raise ValueError(f"{where}: a target has a folder, or a server with ca, certificate and key, and nothing else")
    match = _SERVER.fullmatch(content["server"])
    if not match or int(match["port"] or PORT) > 65535:
        raise ValueError(f"{where}: server: {content['server']!r} is not a name or address with a port, such as logs.example.org:6514")
    if ("certificate" in content) != ("key" in content):
        raise ValueError(f"{where}: certificate and key come together")
    files = {key: content[key] for key in _KEYS if key in content}
    if wrong := [key for key, path in files.items() if not os.path.isabs(path)]:
        raise ValueError(f"{where}: {wrong[0]}: {files[wrong[0]]!r} is not an absolute path")
    return Target(host=match["host"].strip("[]"), port=int(match["port"] or PORT), **files)


def problems(found: t.Iterable[Target], places: Places) -> list[str]:
    """Return why this host cannot ship to its targets, a line each, without reaching any."""
    said = []
    for target in found:
        if target.folder:
            if not os.path.isdir(target.folder):
                said.append(f"logging_ship_to: {target}: there is no such folder: mount it first")
            elif os.stat(target.folder).st_dev == _device(places.logs):
                said.append(f"logging_ship_to: {target}: is on the file system of the log itself, where one hand can change both: mount another there")
        said += [
            f"logging_ship_to: {target}: {key}: there is no file {path}"
            for key in _KEYS
            if (path := getattr(target, key)) and not os.path.isfile(path)
        ]
    return said


def _device(path: str) -> int:
    """Return the file system that *path* is on, or will be."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.stat(path).st_dev


def read_targets(places: Places) -> list[Target]:
    """Return the targets of this host, none when nothing is shipped. LockError when their file was tampered with."""
    path = config_path(places)
    problem = lock.check(path)
    if problem and problem.kind == "absent":
        return []
    if problem:
        raise lock.LockError(str(problem))
    return targets(json.loads(path.read_bytes())["targets"])


def ship(places: Places) -> list[str]:
    """Ship the head of the log wherever it was not shipped yet, and return where it went, a line each.

    Every target is tried. Raises ShipError with all that failed, LockError, SealError when the head is not the recorder's.
    """
    found = read_targets(places)
    if not found:
        return []
    envelope = seal.read(Path(places.logs, chain.HEAD))
    uid, link = chain.opened_head(envelope, chain.signer(places.log_public))
    line = canonical.dumps(envelope)
    sent = _sent(places)
    done, failed = [], []
    for target in found:
        try:
            if target.folder:
                new = _append(Path(target.folder, f"{platform.node()}-{uid}.heads.jsonl"), line)
            else:
                new = sent.get(str(target)) != canonical.sha256_hex(line)
                if new:
                    _send(target, line)
                    sent[str(target)] = canonical.sha256_hex(line)
                    atomic.write(state_path(places), canonical.dumps(sent) + b"\n", 0o600)
            if new:
                done.append(f"shipped the head at record {link.seq} to {target}")
        except (OSError, ValueError) as error:
            failed.append(f"{target}: {atomic.reason(error) if isinstance(error, OSError) else error}")
    if failed:
        raise ShipError(f"the head of the log was not shipped to {'; '.join(failed)}")
    return done


def _sent(places: Places) -> dict[str, str]:
    try:
        return t.cast("dict[str, str]", json.loads(state_path(places).read_bytes()))
    except (FileNotFoundError, ValueError):
        # Sent once more is no harm.
        return {}


def _append(path: Path, line: bytes) -> bool:
    """Add *line* to the file of heads at *path*, durably, unless it is the last one there; return whether it was added."""
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(handle).st_size
        tail = os.pread(handle, _TAIL, max(0, size - _TAIL))
        if not tail.endswith(b"\n"):
            # A write that a crash has cut off would be taken for a head that was changed.
            size -= len(tail) - (tail.rfind(b"\n") + 1)
            os.ftruncate(handle, size)
        elif tail.endswith(b"\n" + line + b"\n") or tail == line + b"\n":
            return False
        if os.write(handle, line + b"\n") != len(line) + 1:
            os.ftruncate(handle, size)
            raise OSError("there is no space left for a head")
        os.fsync(handle)
    finally:
        os.close(handle)
    return True


def message(line: bytes, host: str, when: str) -> bytes:
    """Return *line* as one message of syslog in the frame of its TLS transport; *when* is a time as :func:`seal.now` has it."""
    head = f"<{_PRIORITY}>1 {when} {host or '-'} dockersandbox - log-head - "
    text = head.encode("ascii", "replace") + line
    return b"%d %b" % (len(text), text)


def _send(target: Target, line: bytes) -> None:
    """Send *line* to a server that proves who it is. Raises OSError (a wrong certificate is one) and ValueError."""
    context = ssl.create_default_context(cafile=target.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if target.certificate:
        context.load_cert_chain(target.certificate, target.key)
    with (
        socket.create_connection((target.host, target.port), timeout=PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=target.host) as connection,
    ):
        connection.sendall(message(line, platform.node(), seal.now()))
        # Syslog acknowledges nothing, and a server tells only now whether it takes this machine's certificate.
        connection.settimeout(_REFUSAL)
        with contextlib.suppress(TimeoutError):
            if not connection.recv(1):
                raise ConnectionError("the server ended the connection")
        connection.settimeout(PATIENCE)
        # That it ends the connection when asked to, in whatever way, tells that it has read all of it.
        with contextlib.suppress(ssl.SSLEOFError):
            connection.unwrap()
