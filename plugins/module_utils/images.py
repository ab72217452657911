# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: a base from the host's own apt sources or a registry, and one image a preset on top of it.

A tag is the hash of what the image is made from, so an image is built once and a changed recipe is another image.
"""

from __future__ import annotations

import io
import os
import platform
import re
import subprocess
import tarfile
import tempfile
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker, DockerError

REPOSITORY = "dockersandbox"
DIGEST = re.compile(r"[a-z0-9][a-z0-9._/:-]*@sha256:[0-9a-f]{64}")
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
# What a sandbox cannot be run, or its changes not be read, without.
CORE_PACKAGES = ("ca-certificates", "catatonit", "git")


class Recipe(t.NamedTuple):
    """What a preset's image is made from: the base's tag, the Dockerfile's text and the tag it gives."""

    base: str
    dockerfile: str
    tag: str


def host_suite() -> str:
    """Return the code name of the host's own Debian release, such as ``bookworm``."""
    name = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    if not name:
        raise DockerError("/etc/os-release tells no code name: set env_base to an image by digest")
    return name


def base_tag(base: str, serial: int, suite: str) -> str:
    """Return the name of the base image: *base* is ``debian`` (then of *suite*) or ``registry/name@sha256:…``."""
    if base != "debian":
        return base
    return f"{REPOSITORY}/base:{suite}-{serial}"


def recipe(base: str, preset: str, packages: t.Sequence[str], serial: int) -> Recipe:
    """Return how the image of *preset* is made on the image *base*; *serial* is raised to have packages renewed."""
    listed = " \\\n      ".join(sorted({*CORE_PACKAGES, *packages}))
    dockerfile = f"""\
# The image of preset {preset}, packages as of serial {serial}.
FROM {base}
# Nothing in a sandbox may gain rights, so no file keeps a set-user-id or set-group-id bit.
RUN apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \\
      {listed} \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/* \\
 && find / -xdev -type f -perm /6000 -exec chmod ug-s {{}} + \\
 && install -d -m 0755 /home/agent /workspace /originals /run/guardrails
ENTRYPOINT ["/usr/bin/catatonit", "-P"]
"""
    return Recipe(base, dockerfile, f"{REPOSITORY}/{preset}:{canonical.sha256_hex(dockerfile.encode())[:12]}")


def apt_sources() -> list[str]:
    """Return the host's own Debian sources as one-line entries, read from apt; DockerError when it has none."""
    command = ["apt-get", "indextargets", "--format", "deb $(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages", "Origin: Debian"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = sorted(set(done.stdout.splitlines()))
    if done.returncode != 0 or not lines:
        raise DockerError("apt knows no Debian source on this host: run apt-get update, or set env_base to an image by digest")
    return lines


def build_base(docker: Docker, tag: str, suite: str) -> None:
    """Make the base image of Debian *suite* from the host's apt sources. Takes 13 to 20 seconds."""
    sources = "\n".join(apt_sources()) + "\n"
    with tempfile.TemporaryDirectory(prefix="guardrails-base-", dir="/var/tmp") as folder:
        tar = os.path.join(folder, "base.tar")
        command = ["mmdebstrap", "--variant=minbase", *_apt_options(), suite, tar, "-"]
        done = subprocess.run(command, input=sources, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))] or done.stderr.splitlines()
            raise DockerError(f"mmdebstrap could not make the base image: {'; '.join(said[-3:])}")
        repository, version = tag.rsplit(":", 1)
        with open(tar, "rb") as file:
            docker.import_image(file, repository, version)


def build(docker: Docker, made: Recipe) -> None:
    """Build a preset's image with the host's network and the host's apt proxy, if it has one."""
    files = {"Dockerfile": made.dockerfile.encode()}
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    docker.build(context.getvalue(), made.tag, _proxies())


def _apt_config(key: str) -> str:
    command = ["apt-config", "shell", "VALUE", key]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return text[len("VALUE='") : -1] if text.startswith("VALUE='") else ""


def _proxies() -> dict[str, str]:
    found = {}
    for scheme in ("http", "https"):
        proxy = _apt_config(f"Acquire::{scheme}::Proxy") or os.environ.get(f"{scheme}_proxy", "")
        if proxy and proxy != "DIRECT":
            found[f"{scheme}_proxy"] = proxy
    return found


def _apt_options() -> list[str]:
    return [f'--aptopt=Acquire::{name.removesuffix("_proxy")}::Proxy "{url}"' for name, url in _proxies().items()]
