# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: a base from the host's own apt sources or a registry, and one image a preset on top of it.

A tag is the hash of what the image is made from, so an image is built once and a changed recipe is another image.
Sources: Dockerfile reference (classic builder), npm-install(1), npm-config(1).
"""

from __future__ import annotations

import inspect
import io
import os
import pathlib
import platform
import re
import subprocess
import tarfile
import tempfile
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical, forward, stack
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker, DockerError

REPOSITORY = "dockersandbox"
DIGEST = re.compile(r"[a-z0-9][a-z0-9._/:-]*@sha256:[0-9a-f]{64}")
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
NPM_PACKAGE = re.compile(r"(?:@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*")
NPM_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]+)?", re.ASCII)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# Elsewhere a mount of the sandbox would hide it.
FILE = re.compile(r"(?:/(?:etc|opt|usr/local))(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._@+-]+)+", re.ASCII)
# What a sandbox cannot be run, or its changes not be read, without.
CORE_PACKAGES = ("ca-certificates", "catatonit", "git", "python3-minimal")
# The image in which npm packages are fetched; it holds this machine's npm settings and is removed after use.
NPM_LABEL = "dockersandbox.guardrails=npm"
_NPM = """\
FROM {base} AS npm
LABEL {label}
RUN apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \\
      -o Dpkg::Options::=--force-unsafe-io ca-certificates npm
COPY npm/ /npm/
# Install scripts would run as root with the host's network: none is. Debian's npm takes packages for musl for ours too.
RUN env -u http_proxy -u https_proxy npm install --global --prefix /usr/local --userconfig /npm/npmrc \\
      --ignore-scripts --no-audit --no-fund --no-update-notifier \\
      {fetched} \\
 && find /usr/local/lib/node_modules -regextype posix-extended -regex '.*/node_modules/(@[^/]+/)?[^/]+-musl' \\
      -prune -exec rm -r {{}} +
"""
_NPM_KEYS = ("registry", "cafile", "proxy", "https-proxy", "noproxy")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


class Preset(t.NamedTuple):
    """What an image holds and a sandbox of it is told.

    *packages* are Debian's, *npm* is name → exact version, *environment* name → text, *files* path → text.
    """

    packages: t.Sequence[str] = ()
    npm: t.Mapping[str, str] = {}
    environment: t.Mapping[str, str] = {}
    files: t.Mapping[str, str] = {}


class Recipe(t.NamedTuple):
    """What the image of the preset *name* is made from: the base's tag, the Dockerfile's text, the tag it gives."""

    name: str
    base: str
    dockerfile: str
    tag: str
    preset: Preset


def preset(name: str, content: t.Any) -> Preset:
    """Return the preset *name* as ``env_presets`` has it; ValueError in one line for what cannot be meant."""
    where = f"env_presets: {name}"
    if name.partition("-")[0] == "services":
        raise ValueError(f"{where}: this name is kept for the image of the services; choose another")
    kinds: dict[str, type] = {"packages": list, "npm": dict, "environment": dict, "files": dict}
    if not isinstance(content, dict) or not set(content) <= set(kinds):
        raise ValueError(f"{where}: a preset is a mapping with packages, npm, environment and files, and nothing else")
    for key, kind in kinds.items():
        if not isinstance(content.get(key, kind()), kind):
            raise ValueError(f"{where}: {key}: is not a {'list' if kind is list else 'mapping'}")
    made = Preset(**content)
    for package in made.packages:
        if not PACKAGE.fullmatch(str(package)):
            raise ValueError(f"{where}: {package!r} is not the name of a Debian package")
    for package, version in made.npm.items():
        if not NPM_PACKAGE.fullmatch(package):
            raise ValueError(f"{where}: {package!r} is not the name of an npm package")
        if not isinstance(version, str) or not NPM_VERSION.fullmatch(version):
            raise ValueError(f"{where}: {package}: {version!r} is not an exact version, such as \"1.2.3\" (in quotes)")
    for variable, value in made.environment.items():
        if not VARIABLE.fullmatch(variable):
            raise ValueError(f"{where}: {variable!r} is not the name of an environment variable")
        if not isinstance(value, str) or "\0" in value:
            raise ValueError(f"{where}: {variable}: {value!r} is not a text: put it in quotes")
    for path, text in made.files.items():
        if not FILE.fullmatch(path):
            raise ValueError(f"{where}: {path!r} is not a plain path below /etc, /opt or /usr/local")
        if not isinstance(text, str):
            raise ValueError(f"{where}: {path}: its content is not a text")
    return made


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


def recipe(base: str, name: str, made_of: Preset, serial: int) -> Recipe:
    """Return how the image of preset *name* is made on the image *base*; raise *serial* to have packages renewed."""
    packages = " \\\n      ".join(sorted({*CORE_PACKAGES, *made_of.packages}))
    fetched = " \\\n      ".join(f"{package}@{version}" for package, version in sorted(made_of.npm.items()))
    # The sums stand for the files' content in the Dockerfile, and so in the tag.
    copies = [f"# {canonical.sha256_hex(text.encode())}  {path}" for path, text in sorted(made_of.files.items())]
    if made_of.files:
        copies.append("COPY files/ /")
    if fetched:
        copies.insert(0, "COPY --from=npm /usr/local/ /usr/local/")
    copies += [f"# {canonical.sha256_hex(_forwarder())}  {stack.FORWARDER}", f"COPY forward.py {stack.FORWARDER}"]
    copied = "".join(f"{line}\n" for line in copies)
    dockerfile = f"""\
# The image of preset {name}, packages as of serial {serial}.
{_NPM.format(base=base, label=NPM_LABEL, fetched=fetched) if fetched else ""}FROM {base}
# Nothing in a sandbox may gain rights, so no file keeps a set-user-id or set-group-id bit. What nobody but root can read
# runs as a process that nobody but root can write into.
# The serial is in the command: the engine would take the same command on the same base for done.
RUN : serial {serial} \\
 && apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \\
      {packages} \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/* \\
 && find / -xdev -type f -perm /6000 -exec chmod ug-s {{}} + \\
 && install -d -m 0755 /home/agent /workspace /originals /run/guardrails \\
 && install -D -m 0711 /usr/bin/catatonit {stack.INIT} \\
 && install -m 0711 /usr/bin/python3 {stack.INTERPRETER}
{copied}ENTRYPOINT ["/usr/bin/catatonit", "-P"]
"""
    return Recipe(name, base, dockerfile, f"{REPOSITORY}/{name}:{canonical.sha256_hex(dockerfile.encode())[:12]}", made_of)


def _forwarder() -> bytes:
    # Where a module runs, its parts are no files.
    return inspect.getsource(forward).encode()


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


def ensure_base(docker: Docker, base: str, tag: str, suite: str) -> None:
    """Make or pull the base image *tag* (see :func:`base_tag`), if it is not there."""
    if docker.image(tag):
        return
    if base == "debian":
        build_base(docker, tag, suite)
    else:
        docker.pull(tag)


def build(docker: Docker, made: Recipe) -> None:
    """Build a preset's image with the host's network and what the host needs to reach its apt and npm sources.

    DockerError in one line, with the package's name, when an npm package or its version does not exist.
    """
    files = {"Dockerfile": made.dockerfile.encode(), "forward.py": _forwarder()}
    files |= {f"files{path}": text.encode() for path, text in made.preset.files.items()}
    if made.preset.npm:
        files |= {f"npm/{name}": content for name, content in npm_settings().items()}
    said: list[str] = []
    try:
        docker.build(context(files), made.tag, proxies(), said.append)
    except DockerError as error:
        if problem := npm_problem("".join(said)):
            raise DockerError(f"env_presets: {made.name}: {problem}") from error
        raise


def context(files: t.Mapping[str, bytes]) -> bytes:
    """Return *files* (path → content) as the tar that the engine builds from; scripts are executable, nothing tells its age."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def npm_problem(said: str) -> str | None:
    """Return in one line why npm failed, from all that a build *said*; None when it was not npm that did."""
    if missing := re.search(r"npm ERR! notarget No matching version found for (\S+)@([^@\s]+?)\.\s", said):
        return f"npm has no version {missing[2]} of {missing[1]}: set one that `npm view {missing[1]} versions` lists"
    if missing := re.search(r"npm ERR! 404 +'?(\S+?)@([^@\s']+)'? is not in this registry", said):
        return f"npm knows no package {missing[1]}: correct its name"
    reasons = [line.removeprefix("npm ERR! ") for line in said.splitlines() if line.startswith("npm ERR! ")]
    if reasons:
        return f"npm: {'; '.join(reasons[:4])}; see that this host can reach its npm registry"
    return None


def npm_settings() -> dict[str, bytes]:
    """Return npm's settings of this host for the image that fetches: registry, proxies and certificates."""
    found = {"proxy": os.environ.get("http_proxy", ""), "https-proxy": os.environ.get("https_proxy", ""), "noproxy": os.environ.get("no_proxy", "")}
    try:
        command = ["npm", "config", "get", *_NPM_KEYS]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pass
    else:
        told = (line.partition("=") for line in done.stdout.splitlines())
        found |= {key: value for key, _equals, value in told if value not in ("", "null")}
    files = {}
    certificates = pathlib.Path(found.pop("cafile", CERTIFICATES))
    if certificates.exists():
        files["ca.crt"] = certificates.read_bytes()
        found["cafile"] = "/npm/ca.crt"
    files["npmrc"] = "".join(f"{key}={value}\n" for key, value in found.items() if value).encode()
    return files


def _apt_config(key: str) -> str:
    command = ["apt-config", "shell", "VALUE", key]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return text[len("VALUE='") : -1] if text.startswith("VALUE='") else ""


def proxies() -> dict[str, str]:
    """Return the proxies by which this host reaches its registries, as the variables that programs read."""
    found = {}
    for scheme in ("http", "https"):
        proxy = _apt_config(f"Acquire::{scheme}::Proxy") or os.environ.get(f"{scheme}_proxy", "")
        if proxy and proxy != "DIRECT":
            found[f"{scheme}_proxy"] = proxy
    return found


def _apt_options() -> list[str]:
    return [f'--aptopt=Acquire::{name.removesuffix("_proxy")}::Proxy "{url}"' for name, url in proxies().items()]
