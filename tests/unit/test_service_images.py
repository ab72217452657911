# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of the services: made of locked files alone, another one for each change, and of this host's pip settings nothing."""

from __future__ import annotations

import hashlib
import pathlib
import typing as t

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import images, lock, service_images

BASE = "dockersandbox/base:bookworm-1"
CORE = "lib/ansible_collections/dockersandbox/guardrails/plugins/module_utils/places.py"
SERVICE = "src/dockersandbox/recorder/__main__.py"
REQUIREMENTS = "src/requirements.txt"
FILES = {CORE: "HOME = 1\n", SERVICE: "print()\n", REQUIREMENTS: "aiohttp==1 --hash=sha256:00\n"}


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    """A home with a file of each kind, locked."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        lock.write_locked(tmp_path / name, content.encode())
    return tmp_path


def made(home: pathlib.Path, base: str = BASE, serial: int = 1) -> dict[str, service_images.Part]:
    return service_images.parts(base, serial, service_images.sources(str(home)))


def test_the_core_has_its_full_name_and_the_services_theirs(home: pathlib.Path) -> None:
    assert made(home)["services"].files == {
        "guardrails/ansible_collections/dockersandbox/guardrails/plugins/module_utils/places.py": b"HOME = 1\n",
        "guardrails/dockersandbox/recorder/__main__.py": b"print()\n",
    }
    assert made(home)["services-python"].files == {"requirements.txt": b"aiohttp==1 --hash=sha256:00\n"}


def test_what_has_no_lock_is_left_out(home: pathlib.Path) -> None:
    before = made(home)
    (home / SERVICE).with_name("__pycache__").mkdir()
    (home / SERVICE).with_name("__pycache__").joinpath("__main__.cpython-311.pyc").write_bytes(b"code")
    (home / "src" / "own.py").write_text("", encoding="ascii")
    assert made(home) == before


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_built_from_what_was_tampered_with(home: pathlib.Path, name: str) -> None:
    (home / name).write_text("other\n", encoding="ascii")
    with pytest.raises(lock.LockError, match=r"its sha256 is .*, its lock says") as caught:
        made(home)
    assert str(home / name) in str(caught.value)


def test_a_home_without_sources_names_the_phase_to_run(tmp_path: pathlib.Path) -> None:
    with pytest.raises(lock.LockError, match=r"src/requirements\.txt is not there: run phase bootstrap"):
        made(tmp_path)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda home: lock.write_locked(home / SERVICE, b"print(1)\n"), {"services-python"}),
        (lambda home: lock.write_locked(home / CORE, b"HOME = 2\n"), {"services-python"}),
        (lambda home: lock.write_locked(home / CORE.replace("places", "more"), b""), {"services-python"}),
        (lambda home: lock.write_locked(home / REQUIREMENTS, b"aiohttp==2 --hash=sha256:00\n"), set()),
        (lambda _home: None, {"services", "services-python"}),
    ],
)
def test_a_tag_stands_for_the_content(home: pathlib.Path, change: t.Callable[[pathlib.Path], None], same: set[str]) -> None:
    before = made(home)
    change(home)
    assert {name for name, part in made(home).items() if part.tag == before[name].tag} == same


def test_a_tag_stands_for_the_base_and_the_serial(home: pathlib.Path) -> None:
    tags = {part.tag for args in ((BASE, 1), (BASE, 2), ("debian@sha256:" + "0" * 64, 1)) for part in made(home, *args).values()}
    assert len(tags) == 6


def test_the_tag_is_the_hash_of_the_dockerfile_which_names_every_sum(home: pathlib.Path) -> None:
    for name, part in made(home).items():
        assert part.tag == f"{images.REPOSITORY}/{name}:{hashlib.sha256(part.dockerfile.encode()).hexdigest()[:12]}"
        for path, content in part.files.items():
            assert f"# {hashlib.sha256(content).hexdigest()}  {path.removeprefix('guardrails/')}\n" in part.dockerfile


@pytest.mark.parametrize(
    ("files", "environment", "said"),
    [
        ({}, {}, ""),
        ({"etc/pip.conf": "[global]\nindex-url = https://own/simple\n"}, {}, "index-url = https://own/simple\n"),
        ({"etc/pip.conf": "[global]\nindex_url = https://own/simple\n"}, {}, "index-url = https://own/simple\n"),
        ({"etc/pip.conf": "[install]\ntrusted-host = own\n"}, {}, "trusted-host = own\n"),
        (
            {"etc/pip.conf": "[global]\nindex-url = https://a/\n", "home/.config/pip/pip.conf": "[global]\nindex-url = https://b/\n"},
            {},
            "index-url = https://b/\n",
        ),
        ({"home/.pip/pip.conf": "[global]\nindex-url = https://a/\n"}, {"PIP_INDEX_URL": "https://b/"}, "index-url = https://b/\n"),
        ({"named": "[global]\nproxy = http://p:1\n"}, {"PIP_CONFIG_FILE": "named"}, "proxy = http://p:1\n"),
        ({}, {"https_proxy": "http://p:2"}, "proxy = http://p:2\n"),
        ({}, {"PIP_PROXY": "http://p:3", "https_proxy": "http://p:2"}, "proxy = http://p:3\n"),
        ({}, {"PIP_DEFAULT_TIMEOUT": "60"}, "timeout = 60\n"),
        # Folders of the host cannot be reached from a build; what lies elsewhere can.
        (
            {"etc/pip.conf": "[global]\nextra-index-url =\n    file:///srv/wheels\n    https://c/\nfind-links = /srv/wheels\n"},
            {},
            "extra-index-url = https://c/\n",
        ),
        ({"etc/pip.conf": "[global]\nindex-url = https://100%%/\n"}, {}, "index-url = https://100%%/\n"),
    ],
)
def test_pip_settings(tmp_path: pathlib.Path, files: dict[str, str], environment: dict[str, str], said: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="ascii")
    environment = {**environment, "HOME": str(tmp_path / "home")}
    if "PIP_CONFIG_FILE" in environment:
        environment["PIP_CONFIG_FILE"] = str(tmp_path / environment["PIP_CONFIG_FILE"])
    assert service_images.pip_settings(environment, str(tmp_path)) == {"pip.conf": f"[global]\n{said}".encode()}


@pytest.mark.parametrize("named", [True, False])
def test_pip_gets_the_certificates_of_the_host(tmp_path: pathlib.Path, named: bool) -> None:
    place = tmp_path / "own.crt" if named else pathlib.Path(f"{tmp_path}{images.CERTIFICATES}")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"certificate")
    environment = {"HOME": "/nonexistent", **({"PIP_CERT": str(place)} if named else {})}
    assert service_images.pip_settings(environment, str(tmp_path)) == {"pip.conf": b"[global]\ncert = /pip/ca.crt\n", "ca.crt": b"certificate"}


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("Step 1/9 : FROM x\nE: Unable to locate package\n", None),
        (
            "Collecting x\nERROR: Could not find a version that satisfies the requirement x==9\nERROR: No matching distribution found for x==9\n",
            "pip: Could not find a version that satisfies the requirement x==9; No matching distribution found for x==9; "
            "see that this host can reach its package index",
        ),
    ],
)
def test_why_pip_failed(said: str, problem: str | None) -> None:
    assert service_images.pip_problem(said) == problem
