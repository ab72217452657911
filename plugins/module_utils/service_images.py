# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one image that all services run from: Python with pinned packages, the core under its full name, and the services.

It is two: the packages, which take half a minute and change with ``requirements/services.txt`` alone, and on them what is
ours. Each has the hash of its Dockerfile as its tag, and that holds the sum of every file, so nothing is built twice.
Sources: Dockerfile reference (classic builder), pip's documentation (configuration, user guide).
"""

from __future__ import annotations

import configparser
import os
import pathlib
import re
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical, images, lock
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker, DockerError

NAME = "services"
PACKAGES = f"{NAME}-python"
REQUIREMENTS = "requirements.txt"
PROGRAM = ("/opt/venv/bin/python", "-I", "-m")
# The stage in which packages are fetched; it holds this machine's pip settings and is removed after use.
PIP_LABEL = "dockersandbox.guardrails=pip"
# What names a place or says how to reach it. Folders of the host cannot be reached from a build.
_PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
_PIP_PLACES = ("index-url", "extra-index-url")
_APT = "apt-get update \\\n && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends -o Dpkg::Options::=--force-unsafe-io"


class Part(t.NamedTuple):
    """One of the two images: its Dockerfile, the tag that this gives, and the files to build from (path → content)."""

    dockerfile: str
    tag: str
    files: dict[str, bytes]


def tag(name: str, dockerfile: str) -> str:
    """Return the tag of the image of that *name* and *dockerfile*."""
    return f"{images.REPOSITORY}/{name}:{canonical.sha256_hex(dockerfile.encode())[:12]}"


def sources(home: str) -> dict[str, bytes]:
    """Return what the image holds of ours, path → content, from the locked files below ``lib`` and ``src`` of *home*.

    ``requirements.txt`` is among them. Raises LockError, in one line, when one is not as its lock says or none is there.
    """
    found = {}
    problems = []
    for folder in (pathlib.Path(home, "lib"), pathlib.Path(home, "src")):
        # What has no lock was not put there by us, such as bytecode.
        for path in lock.locked(folder, lambda _folder: False) if folder.is_dir() else []:
            if problem := lock.check(path):
                problems.append(str(problem))
            else:
                found[str(path.relative_to(folder))] = path.read_bytes()
    if problems:
        raise lock.LockError("; ".join(problems))
    if REQUIREMENTS not in found:
        raise lock.LockError(f"{home}/src/{REQUIREMENTS} is not there: run phase bootstrap (--tags bootstrap) first")
    return found


def parts(base: str, serial: int, found: t.Mapping[str, bytes]) -> dict[str, Part]:
    """Return by name how the two images are made on the image *base*, packages first; raise *serial* to renew them.

    *found* is what :func:`sources` returned.
    """
    ours = dict(found)
    requirements = ours.pop(REQUIREMENTS)
    text = f"""\
# Python and the packages of the services, as of serial {serial}.
FROM {base} AS packages
LABEL {PIP_LABEL}
RUN : serial {serial} \\
 && {_APT} \\
      ca-certificates python3-venv
COPY {REQUIREMENTS} /{REQUIREMENTS}
# {canonical.sha256_hex(requirements)}  {REQUIREMENTS}
COPY pip/ /pip/
# Packages come built: the setup of one that does not would run as root with the host's network.
RUN python3 -m venv /pip/venv \\
 && python3 -m venv --without-pip /opt/venv \\
 && env -u http_proxy -u https_proxy PIP_CONFIG_FILE=/pip/pip.conf /pip/venv/bin/pip --python /opt/venv/bin/python install \\
      --disable-pip-version-check --no-cache-dir --no-input --only-binary=:all: --require-hashes --requirement /{REQUIREMENTS}
FROM {base}
RUN : serial {serial} \\
 && {_APT} \\
      ca-certificates python3 \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/* \\
 && find / -xdev -type f -perm /6000 -exec chmod ug-s {{}} +
COPY --from=packages /opt/venv/ /opt/venv/
"""
    packages = Part(text, tag(PACKAGES, text), {REQUIREMENTS: requirements})
    sums = "\n".join(f"# {canonical.sha256_hex(content)}  {path}" for path, content in sorted(ours.items()))
    text = f"""\
# The services: the core under its full name, and what runs on it.
FROM {packages.tag}
{sums}
COPY guardrails/ /opt/guardrails/
# The root of a service is read-only: what is not compiled here is compiled at every start.
RUN echo /opt/guardrails >"$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/guardrails.pth" \\
 && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/guardrails
ENTRYPOINT [{", ".join(f'"{word}"' for word in PROGRAM)}]
"""
    return {PACKAGES: packages, NAME: Part(text, tag(NAME, text), {f"guardrails/{path}": content for path, content in ours.items()})}


def build(docker: Docker, part: Part) -> None:
    """Build one of the two images. DockerError in one line, with pip's reason when it was pip that failed."""
    files = {"Dockerfile": part.dockerfile.encode(), **part.files}
    if REQUIREMENTS in part.files:
        files |= {f"pip/{name}": content for name, content in pip_settings().items()}
    said: list[str] = []
    try:
        docker.build(images.context(files), part.tag, images.proxies(), said.append)
    except DockerError as error:
        if problem := pip_problem("".join(said)):
            raise DockerError(f"{part.tag}: {problem}") from error
        raise
    finally:
        if REQUIREMENTS in part.files:
            docker.prune_images(PIP_LABEL)


def pip_problem(said: str) -> str | None:
    """Return in one line why pip failed, from all that a build *said*; None when it was not pip that did."""
    reasons = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    if not reasons:
        return None
    return f"pip: {'; '.join(reasons[:3])}; see that this host can reach its package index"


def pip_settings(environment: t.Mapping[str, str] | None = None, root: str = "/") -> dict[str, bytes]:
    """Return pip's settings of this host for the stage that fetches, as files: its indexes, proxy and certificates.

    Read as pip reads them: the machine's file, the user's, the one that ``PIP_CONFIG_FILE`` names, then variables.
    *root* stands for the root folder.
    """
    environment = os.environ if environment is None else environment
    top = pathlib.Path(root)
    user = pathlib.Path(environment.get("HOME", "/root"))
    names = [top / "etc/pip.conf", user / ".pip/pip.conf", pathlib.Path(environment.get("XDG_CONFIG_HOME", user / ".config"), "pip/pip.conf")]
    if named := environment.get("PIP_CONFIG_FILE"):
        names.append(pathlib.Path(named))
    found: dict[str, str] = {}
    for name in names:
        parser = configparser.RawConfigParser()
        parser.read(name, encoding="utf-8")
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    found |= {key[4:].lower().replace("_", "-"): value for key, value in environment.items() if key.startswith("PIP_")}
    found.setdefault("timeout", found.get("default-timeout", ""))
    found.setdefault("proxy", environment.get("https_proxy") or environment.get("http_proxy") or "")
    certificates = pathlib.Path(found.get("cert") or str(top) + images.CERTIFICATES)
    lines = ["[global]"]
    files = {}
    for key in _PIP_KEYS:
        words = [word for word in found.get(key, "").split() if key not in _PIP_PLACES or re.match(r"https?://", word)]
        if words:
            lines.append(f"{key} = {' '.join(words)}")
    if certificates.exists():
        files["ca.crt"] = certificates.read_bytes()
        lines.append("cert = /pip/ca.crt")
    files["pip.conf"] = ("\n".join(lines) + "\n").encode()
    return files
