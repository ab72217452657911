# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services as far as no engine is needed: their descriptions, their walls, their folders, and what check mode foresees."""

from __future__ import annotations

import json
import os
import pathlib
import stat as modes
import typing as t

import modules
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import lock, mounts, seccomp, services, stack, workset
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.docker_api import Docker
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.places import Places
from ansible_collections.dockersandbox.guardrails.plugins.modules import service

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROFILE = (ROOT / "configs" / "seccomp.json").read_text(encoding="utf-8")
IMAGE = "sha256:" + "1" * 64
MINIMAL: services.Description = {"image": IMAGE, "network": "none", "memory": 64 << 20, "nano_cpus": 10**9, "pids": 16, "open_files": 64, "mounts": []}
LOGS = {"source": "/srv/logs", "target": "/var/log/guardrails", "write": True, "mode": 0o2750, "group": "dockersandbox"}
CERTIFICATES = {"source": "/etc/ssl/certs", "target": "/etc/ssl/certs", "write": False, "mode": 0o700, "group": ""}
AT = Places("/home", "/data", "/run/d")


@pytest.fixture
def at(tmp_path: pathlib.Path) -> t.Iterator[Places]:
    """Places of a host without an engine."""
    made = Places(str(tmp_path / "home"), str(tmp_path / "data"), str(tmp_path / "run"))
    yield made
    for mount in mounts.mounted(made.run):
        mounts.unmount(mount.point)


def host(at: Places) -> services.Services:
    return services.Services(Docker(str(pathlib.Path(at.home, "no-engine"))), at)


def described(**changes: t.Any) -> services.Description:
    return {**MINIMAL, "uid": 990, "gid": 991, **changes}


def body(name: str = "egress", **changes: t.Any) -> dict[str, t.Any]:
    return services.container(name, described(**changes), AT, PROFILE)


# -- walls


def test_a_service_has_the_walls_of_a_sandbox() -> None:
    whole: stack.Description = {
        "image": IMAGE, "uid": 990, "gid": 991, "memory": 64 << 20, "nano_cpus": 10**9, "pids": 16, "open_files": 64, "file_size": 1,
        "shm_size": 1, "tmpfs": {}, "mounts": [], "environment": {}, "labels": {},
    }  # fmt: skip
    sandbox = stack.container("box", whole, PROFILE)
    service = body()
    same = """
        CapDrop CgroupnsMode IpcMode MaskedPaths Memory MemorySwap NanoCpus NetworkMode PidsLimit ReadonlyPaths ReadonlyRootfs Runtime SecurityOpt
    """.split()
    assert {key: service["HostConfig"][key] for key in same} == {key: sandbox["HostConfig"][key] for key in same}
    assert service["User"] == "990:991"
    assert service["HostConfig"]["RestartPolicy"] == {"Name": "unless-stopped"}
    assert service["Entrypoint"][-1] == "dockersandbox.egress"


def test_what_services_need_is_in_the_profile() -> None:
    # What asyncio, uvloop and a log that is synced call, beyond what any program does.
    needed = """
        accept4 bind connect epoll_ctl epoll_create1 epoll_pwait eventfd2 fchmod fdatasync flock fsync ftruncate listen pidfd_open recvmsg sendmsg
    """
    allowed = {name for rule in json.loads(PROFILE)["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    assert set(needed.split()) - allowed == set()
    assert seccomp.program(PROFILE)


@pytest.mark.parametrize(
    ("name", "mounts", "seen"),
    [
        ("recorder", [], {"/etc/guardrails": "ro", "/run/guardrails/recorder": "rw"}),
        ("recorder", [LOGS], {"/etc/guardrails": "ro", "/run/guardrails/recorder": "rw", "/var/log/guardrails": "rw"}),
        ("egress", [], {"/etc/guardrails": "ro", "/run/guardrails/recorder": "ro", "/run/guardrails/egress": "rw"}),
        ("llm", [CERTIFICATES], {"/etc/guardrails": "ro", "/run/guardrails/recorder": "ro", "/run/guardrails/llm": "rw", "/etc/ssl/certs": "ro"}),
    ],
)
def test_what_a_service_sees(name: str, mounts: list[dict[str, t.Any]], seen: dict[str, str]) -> None:
    found = body(name, mounts=mounts)["HostConfig"]["Mounts"]
    assert {mount["Target"]: "ro" if mount["ReadOnly"] else "rw" for mount in found} == seen
    assert {mount["Type"] for mount in found} == {"bind"}


def test_a_service_records_through_its_own_folder_alone() -> None:
    sources = {mount["Target"]: mount["Source"] for mount in body("egress")["HostConfig"]["Mounts"]}
    assert sources["/run/guardrails/recorder"] == "/run/d/recorder/egress"
    assert "/run/d/recorder" not in sources.values()


def test_a_way_out_has_a_network_of_its_own_and_no_resolver() -> None:
    found = body("egress", network="own")["HostConfig"]
    assert (found["NetworkMode"], found["Dns"]) == ("guardrails-egress", ["192.0.2.1"])
    assert "Dns" not in body("egress")["HostConfig"]


@pytest.mark.parametrize(
    "change",
    [{"image": "sha256:2"}, {"uid": 1}, {"memory": 1 << 30}, {"network": "own"}, {"pids": 17}, {"open_files": 65}, {"mounts": [LOGS]}],
)
def test_another_description_is_another_container(change: dict[str, t.Any]) -> None:
    label = f"{stack.LABEL}.spec"
    assert body()["Labels"][label] == body()["Labels"][label] != body(**change)["Labels"][label]


# -- descriptions


def write(at: Places, name: str, **changes: t.Any) -> pathlib.Path:
    path = services.part_path(at, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock.write_locked(path, services.text(described(**changes)))
    return path


def test_the_recorder_is_the_first_to_start(at: Places) -> None:
    for name in ("monitor", "egress", "recorder"):
        write(at, name)
    assert list(services.described(at)) == ["recorder", "egress", "monitor"]


def test_a_description_that_was_tampered_with_is_refused(at: Places) -> None:
    write(at, "egress").write_bytes(services.text(described(network="host")))
    with pytest.raises(lock.LockError, match=r"services\.d/egress\.json: its sha256 is"):
        services.described(at)


def test_nothing_is_brought_up_from_a_configuration_that_was_tampered_with(at: Places) -> None:
    write(at, "recorder")
    path = services.config_path(at, "recorder")
    path.parent.mkdir(parents=True)
    lock.write_locked(path, b"{}\n")
    path.write_bytes(b"{ }\n")
    with pytest.raises(services.ServiceError, match=r"service recorder: .*services/recorder\.json: its sha256 is"):
        host(at).bring_up("recorder", described(), ["has no container"])


def test_a_service_without_an_image_names_the_phase_to_run(at: Places) -> None:
    with pytest.raises(services.ServiceError, match=r"Dockerfile\.services is not there: run phase env"):
        services.image(at)


# -- folders


def _mode(path: str) -> tuple[int, int, int]:
    about = os.stat(path)
    return modes.S_IMODE(about.st_mode), about.st_uid, about.st_gid


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away")
def test_folders_belong_to_the_service_however_they_were(at: Places) -> None:
    logs = f"{at.home}/observability/logs"
    mount = {**LOGS, "source": logs, "group": "daemon"}
    for _time in range(2):
        host(at)._folders("recorder", described(mounts=[mount]))
        assert _mode(f"{at.run}/recorder") == (0o700, 990, 991)
        assert _mode(logs) == (0o2750, 990, 1)
        os.chmod(f"{at.run}/recorder", 0o777)
        os.chown(logs, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away")
def test_what_is_mounted_later_hides_no_socket(at: Places) -> None:
    host(at)._folders("recorder", described())
    workset.ensure_run(at)
    assert os.path.isdir(services.run_folder(at, "recorder"))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away")
def test_a_link_in_the_place_of_a_folder_is_refused(at: Places) -> None:
    workset.ensure_run(at)
    os.symlink("/etc", f"{at.run}/recorder")
    with pytest.raises(OSError, match="Not a directory|Too many levels"):
        host(at)._folders("recorder", described())
    assert _mode("/etc")[1:] == (0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away")
def test_no_service_comes_up_without_the_recorder(at: Places) -> None:
    with pytest.raises(services.ServiceError, match="service egress: there is no recorder on this host"):
        host(at)._folders("egress", described())


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away")
def test_a_sandbox_s_socket_has_a_folder_that_is_where_it_seems(at: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "ids", lambda _name: (990, 991))
    folder = f"{at.run}/egress/sandboxes/box"
    for _time in range(2):
        services.make_sandbox_folder(at, "egress", "box")
        assert _mode(folder) == (0o755, 990, 991)
    # What is in its own folder, a service that was taken over can replace.
    for place in (folder, f"{at.run}/egress/sandboxes"):
        os.rename(place, f"{place}.away")
        os.symlink(f"{place}.away", place)
        with pytest.raises(OSError, match="Not a directory|Too many levels"):
            services.make_sandbox_folder(at, "egress", "box")
        os.unlink(place)
        os.rename(f"{place}.away", place)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away")
def test_a_service_that_never_ran_here_has_an_account_by_then(at: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "ids", lambda _name: None)
    monkeypatch.setattr(services, "make_account", {"egress": (980, 981)}.__getitem__)
    services.make_sandbox_folder(at, "egress", "box")
    assert [_mode(f"{at.run}/egress{path}") for path in ("", "/sandboxes", "/sandboxes/box")] == [(0o700, 980, 981), (0o755, 980, 981), (0o755, 980, 981)]


# -- the module


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "state is present but all of the following are missing: name"),
        ({"name": "mail"}, "value of name must be one of: recorder, tracer, egress, simulator, llm, control, warden, monitor, got: mail"),
        ({"name": "egress", "network": "bridge"}, "value of network must be one of: none, own, got: bridge"),
        ({"name": "egress", "memory": "much"}, "memory: 'much' is not a size: write a whole number above 0 with k, m, g or t, such as 512m"),
        ({"name": "egress", "cpus": "0"}, "cpus: '0' is not a number of processors from 0.01 to 1024, such as 1.5"),
        (
            {"name": "egress", "mounts": [{"source": "/a", "target": "/a", "mode": "rwx"}]},
            "mounts[0]: mode: 'rwx' is not octal, such as \"0750\"",
        ),
        ({"name": "egress"}, "configs/Dockerfile.services is not there: run phase env (--tags env) first, which builds the image of the services"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(at: Places, arguments: dict[str, t.Any], said: str) -> None:
    done = modules.run("service", home=at.home, data=at.data, run=at.run, **arguments)
    assert done["failed"]
    assert said in done["msg"]
    assert "\n" not in done["msg"]
    assert not os.path.exists(at.home)


def test_check_mode_foresees_all_of_it_and_changes_nothing(at: Places) -> None:
    done = services.Services(Docker(str(pathlib.Path(at.home, "no-engine"))), at).converge("tracer", MINIMAL, {"key": 1}, keep=False, check=True)
    assert done.actions == [
        "Made the account guardrails-tracer: it was not there",
        f"Wrote {at.home}/configs/services.d/tracer.json: it was not there",
        f"Wrote {at.home}/configs/services/tracer.json: it was not there",
        "Brought up service tracer: there is no engine yet",
    ]
    assert '"key": 1' in done.after and done.before == ""
    assert not os.path.exists(at.home) and services.ids("tracer") is None


def test_a_service_that_is_absent_leaves_nothing_to_start(at: Places) -> None:
    path = write(at, "simulator")
    done = service.absent(host(at), "simulator", check=True)
    assert done["actions"] == ["Took down service simulator"] and path.exists()
    assert not service.absent(host(at), "control", check=True)["changed"]


@pytest.mark.parametrize(("keep", "changes"), [(True, False), (False, True)])
def test_a_configuration_that_is_kept_stays(at: Places, keep: bool, changes: bool) -> None:
    path = services.config_path(at, "tracer")
    path.parent.mkdir(parents=True)
    lock.write_locked(path, services.text({"key": 1}), 0o640, 0, 0)
    done = host(at).converge("tracer", MINIMAL, {"key": 2}, keep=keep, check=True)
    assert any(str(path) in action for action in done.actions) is changes
