# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package registries that this machine itself uses, as rules for sandboxes, so that nobody has to write them down.

They are read when they are asked for, from the settings of apt, pip and npm. A registry that hands out files from another host
than its own needs a rule for that one besides.
"""

from __future__ import annotations

import configparser
import ipaddress
import socket
import typing as t
import urllib.parse

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import hosts, images, service_images

GROUP = "registries"
_PORTS = {"http": 80, "https": 443}


class Found(t.NamedTuple):
    """The addresses of registries (URLs) by the tool that uses them."""

    apt: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()


def machine() -> Found:
    """Return the registries of this machine. DockerError in one line when apt has none."""
    apt = [line.split()[1] for line in images.apt_sources()]
    parser = configparser.RawConfigParser()
    parser.read_string(service_images.pip_settings()["pip.conf"].decode())
    pip = [word for key in ("index-url", "extra-index-url") for word in parser.get("global", key, fallback="").split()]
    npm = dict(line.split("=", 1) for line in images.npm_settings()["npmrc"].decode().splitlines())
    return Found(tuple(dict.fromkeys(apt)), tuple(pip), tuple(filter(None, [npm.get("registry")])))


def rules(found: Found, private: t.Callable[[str, int], bool]) -> list[dict[str, t.Any]]:
    """Return the rules that open *found*, as the allowlist has them. *private* tells whether a name leads to private addresses.

    Of plain HTTP only what apt fetches is narrowed to its folders: the other tools' paths cannot be told beforehand.
    """
    paths: dict[tuple[str, str, int], set[str]] = {}
    for tool, urls in found._asdict().items():
        for url in urls:
            parts = urllib.parse.urlsplit(url)
            if parts.scheme in _PORTS and parts.hostname:
                key = (parts.hostname, parts.scheme, parts.port or _PORTS[parts.scheme])
                paths.setdefault(key, set()).add((parts.path.rstrip("/") or "/") if tool == "apt" else "/")
    leads = {name: False for name, _scheme, _port in paths}
    for name, _scheme, port in paths:
        leads[name] = leads[name] or private(name, port)
    made: list[dict[str, t.Any]] = []
    for (name, scheme, port), below in sorted(paths.items()):
        rule: dict[str, t.Any] = {"host": name, "scheme": scheme, "ports": [port], "allow_private": leads[name]}
        if scheme == "http":
            rule["paths"] = ["/"] if "/" in below else sorted(below)
        made.append(rule)
    return made


def environment(found: Found) -> dict[str, str]:
    """Return what tells pip and npm in a sandbox of *found*; an address with a password in it is not told."""
    pip = [url for url in found.pip if "@" not in urllib.parse.urlsplit(url).netloc]
    told = {"PIP_INDEX_URL": " ".join(pip[:1]), "PIP_EXTRA_INDEX_URL": " ".join(pip[1:])}
    told["PIP_TRUSTED_HOST"] = " ".join(sorted({urllib.parse.urlsplit(url).netloc for url in pip if url.startswith("http:")}))
    told["NPM_CONFIG_REGISTRY"] = " ".join(url for url in found.npm if "@" not in urllib.parse.urlsplit(url).netloc)
    return {key: value for key, value in told.items() if value}


def private(name: str, port: int) -> bool:
    """Return whether a name, or an address, leads to a private address. ValueError in one line when it leads nowhere."""
    try:
        answers = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"network_registries: {name}, which this machine fetches packages from, cannot be resolved: {error.strerror}") from None
    return any(hosts.kind(ipaddress.ip_address(str(answer[4][0]).partition("%")[0])) == hosts.PRIVATE for answer in answers)
