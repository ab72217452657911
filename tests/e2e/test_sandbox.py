# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the description of a sandbox promises, seen from inside; and that the play keeps it so.

The last three tests change which sandboxes there are and stand in this order.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pathlib
import select
import socket
import subprocess
import typing as t

import here
import pytest
import yaml
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import mounts, sandboxes, stack

pytestmark = pytest.mark.usefixtures("site_with_ours")

MIB = 1 << 20
ADDED = "e2e-added"


def python(name: str, script: str) -> t.Any:
    """Run Python in a sandbox and return the JSON that it prints."""
    done = here.inside(name, "python3", "-c", script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# -- who it is, what it may


@pytest.mark.parametrize("box", here.DECLARED, ids=lambda box: box["name"])
def test_the_user_has_no_rights(box: dict[str, t.Any]) -> None:
    status = dict(line.split(":\t", 1) for line in here.inside(box["name"], "cat", "/proc/self/status").stdout.splitlines())
    uid = here.OWNER if box["name"] == here.OWN else here.uid(box["name"])
    assert uid >= 1000
    assert status["Uid"].split() == status["Gid"].split() == [str(uid)] * 4
    assert set(status["Groups"].split()) <= {str(uid)}
    assert {key: int(status[key], 16) for key in status if key.startswith("Cap")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
    )
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@pytest.mark.parametrize("path", ["/", "/usr/bin", "/etc", "/etc/passwd", "/run", "/run/guardrails", "/var/tmp", "/home", "/proc/sys/kernel", "/dev"])
def test_what_is_not_its_own_cannot_be_written(path: str) -> None:
    done = here.inside(here.CAPS, "sh", "-c", 'if [ -d "$1" ]; then : > "$1/e2e"; else echo x >> "$1"; fi', "sh", path)
    assert done.returncode != 0
    assert any(word in done.stderr for word in ("Read-only", "denied", "nonexistent")), done.stderr


@pytest.mark.parametrize("folder", ["/tmp", "/home/agent", "/workspace"])
def test_what_was_built_in_a_folder_of_its_own_runs_there(folder: str) -> None:
    assert here.inside(here.CAPS, "sh", "-c", "cp /bin/true $0/built && $0/built && rm $0/built", folder).returncode == 0


# -- caps that stop


@pytest.mark.parametrize(("folder", "size"), [("/tmp", 8 * MIB), ("/home/agent", 4 * MIB), ("/dev/shm", 32 * MIB)])
def test_a_folder_in_memory_is_full_at_its_size(folder: str, size: int) -> None:
    script = f"cd {folder} && dd if=/dev/zero of=e2e bs=64k count=1024; stat -c %s e2e; rm e2e"
    # In pieces below the cap on a single file.
    if size > 16 * MIB:
        script = f"cd {folder} && for i in 1 2 3; do dd if=/dev/zero of=e2e$i bs=64k count=240; done; cat e2e* | wc -c; rm e2e*"
    done = here.inside(here.CAPS, "sh", "-c", script)
    assert "No space left" in done.stderr
    assert size - MIB <= int(done.stdout) <= size


def test_memory_is_capped() -> None:
    done = here.inside(here.CAPS, "python3", "-c", "b = bytearray(200 << 20); print(len(b))")
    assert (done.returncode, done.stdout) == (137, ""), done.stderr
    assert here.inspect(here.CAPS)["State"]["Running"]
    assert here.inside(here.CAPS, "python3", "-c", "b = bytearray(60 << 20)").returncode == 0


def test_processes_are_capped() -> None:
    script = """
import json, os, signal
children = []
try:
    while len(children) < 200:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError as error:
    said = error.errno
for child in children:
    os.kill(child, signal.SIGKILL)
print(json.dumps([len(children), said]))
"""
    count, said = python(here.CAPS, script)
    assert said == errno.EAGAIN
    assert 48 - 6 <= count < 48


def test_open_files_are_capped() -> None:
    script = """
import json, os, resource
files = []
try:
    while True:
        files.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    said = error.errno
for one in files:
    os.close(one)
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
except ValueError:
    print(json.dumps([files[-1], said]))
"""
    assert python(here.CAPS, script) == [127, errno.EMFILE]


def test_a_files_size_is_capped() -> None:
    done = here.inside(here.CAPS, "sh", "-c", "dd if=/dev/zero of=/workspace/large bs=1M count=20; echo $?; stat -c %s /workspace/large; rm /workspace/large")
    assert done.stdout.split() == [str(128 + 25), str(16 * MIB)]  # SIGXFSZ


# -- no way out


def test_there_is_no_network() -> None:
    script = """
import errno, json, os, socket
said = {}
for word, act in {
    "name": lambda: socket.getaddrinfo("debian.org", 80),
    "address": lambda: socket.create_connection(("192.0.2.1", 80), 3),
    "bridge": lambda: socket.create_connection(("172.17.0.1", 80), 3),
    "address 6": lambda: socket.create_connection(("2001:db8::1", 80), 3),
    "dns": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)),
    "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
}.items():
    try:
        act()
        said[word] = "done"
    except OSError as error:
        said[word] = "refused"
said["interfaces"] = sorted(name for _, name in socket.if_nameindex())
said["routes"] = open("/proc/net/route").read().count("\\n") - 1
print(json.dumps(said))
"""
    said = python(here.CAPS, script)
    # A kernel may give every network namespace unusable tunnel devices; none of them is up.
    up = here.inside(here.CAPS, "sh", "-c", "grep -l '^up$\\|^unknown$' /sys/class/net/*/operstate").stdout.split()
    assert [path.split("/")[4] for path in up] == ["lo"]
    assert said.pop("interfaces") == ["lo"]
    assert said.pop("routes") == 0
    assert set(said.values()) == {"refused"}, said


REFUSED = """
import ctypes, errno, json, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
f, d = "/originals/README.md", "/originals/data"
def mapped():
    with open(f, "rb") as file:
        mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
acts = {
    "write": lambda: open(f, "wb"), "append": lambda: open(f, "ab"), "update": lambda: open(f, "r+b"),
    "truncate": lambda: os.truncate(f, 0), "chmod": lambda: os.chmod(f, 0o777), "chmod folder": lambda: os.chmod(d, 0o777),
    "chown": lambda: os.chown(f, os.getuid(), os.getgid()), "utime": lambda: os.utime(f), "rename": lambda: os.rename(f, f + "x"),
    "rename over": lambda: os.rename("/originals/tool", f), "link": lambda: os.link(f, f + "x"), "unlink": lambda: os.unlink(f),
    "link out": lambda: os.link(f, "/workspace/out"), "symlink": lambda: os.symlink("x", f + "x"), "mkdir": lambda: os.mkdir(d + "/x"),
    "rmdir": lambda: os.rmdir(d + "/deep"), "fifo": lambda: os.mkfifo(f + "x"), "xattr": lambda: os.setxattr(f, "user.x", b"x"),
    "mmap": mapped, "in proc": lambda: open("/proc/self/root" + f, "ab"), "above": lambda: open("/workspace/../originals/README.md", "ab"),
}
said = {}
for word, act in acts.items():
    try:
        act()
        said[word] = "DONE"
    except OSError as error:
        said[word] = errno.errorcode[error.errno]
print(json.dumps(said))
"""


@pytest.mark.parametrize("name", [here.CAPS, here.OWN])
def test_originals_refuse_every_write(name: str) -> None:
    folder = here.TREES / name.removeprefix(here.PREFIX)
    before = here.digest(folder)
    said = python(name, REFUSED)
    assert set(said.values()) <= {"EROFS", "EXDEV", "EACCES"}, said
    assert said["link out"] == "EXDEV"
    assert here.digest(folder) == before


def test_a_socket_a_fifo_and_a_lock_of_the_host_are_out_of_reach() -> None:
    folder = here.TREES / "caps"
    door, pipe, file = folder / "socket", folder / "fifo", folder / "README.md"
    with socket.socket(socket.AF_UNIX) as listener, file.open("rb") as locked:
        try:
            listener.bind(str(door))
            listener.listen()
            door.chmod(0o777)
            os.mkfifo(pipe)
            pipe.chmod(0o666)
            for path in (door, pipe):
                os.chown(path, 0, 0)
            end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
            fcntl.flock(locked, fcntl.LOCK_EX)
            script = """
import errno, fcntl, json, os, socket
said = {}
for place in ("/originals", "/workspace"):
    def connected():
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(place + "/socket")
    def written():
        with open(os.open(place + "/fifo", os.O_WRONLY | os.O_NONBLOCK), "wb") as one:
            one.write(b"x")
    def locked():
        fcntl.flock(open(place + "/README.md", "rb"), fcntl.LOCK_EX | fcntl.LOCK_NB)
    for act in (connected, written, locked):
        try:
            act()
            said[place + " " + act.__name__] = "done"
        except OSError as error:
            said[place + " " + act.__name__] = errno.errorcode[error.errno]
print(json.dumps(said))
"""
            said = python(here.CAPS, script)
            assert "done" not in {said[word] for word in said if word.split()[1] != "locked"}, said
            # The host's lock is not seen: it is another file's.
            assert {said[word] for word in said if word.split()[1] == "locked"} == {"done"}
            assert select.select([listener.fileno(), end], [], [], 0.2)[0] == []
            os.close(end)
        finally:
            door.unlink(missing_ok=True)
            pipe.unlink(missing_ok=True)


def test_the_owner_of_the_originals_works_as_himself() -> None:
    done = here.inside(here.OWN, "sh", "-c", "cd /workspace && echo x >> README.md && stat -c %u README.md data && rm -r data && mkdir data")
    assert done.stdout.split() == [str(here.OWNER)] * 2, done.stderr
    assert here.inspect(here.OWN)["Config"]["User"] == f"{here.OWNER}:{here.OWNER}"


# -- the stack


@pytest.mark.parametrize("box", here.DECLARED, ids=lambda box: box["name"])
def test_the_compose_file_is_what_runs(box: dict[str, t.Any]) -> None:
    document = yaml.safe_load(pathlib.Path(here.AT.home, "configs", "compose.yml").read_text(encoding="utf-8"))
    service = document["services"][stack.container_name(box["name"])]
    real = here.inspect(box["name"])
    config, limits = real["Config"], real["HostConfig"]
    assert service["container_name"] == real["Name"].lstrip("/")
    assert service["image"] == real["Image"]
    assert (service["hostname"], service["user"], service["working_dir"]) == (config["Hostname"], config["User"], config["WorkingDir"])
    assert service["entrypoint"] == config["Entrypoint"]
    assert {f"{key}={value}" for key, value in service["environment"].items()} <= set(config["Env"])
    assert service["labels"].items() <= config["Labels"].items()
    assert service["network_mode"] == limits["NetworkMode"] == "none"
    assert service["read_only"] is limits["ReadonlyRootfs"] is True
    assert service["cap_drop"] == limits["CapDrop"] == ["ALL"]
    assert (service["mem_limit"], service["memswap_limit"]) == (limits["Memory"], limits["MemorySwap"])
    assert (service["cpus"] * 10**9, service["pids_limit"], service["shm_size"]) == (limits["NanoCpus"], limits["PidsLimit"], limits["ShmSize"])
    assert service["oom_score_adj"] == limits["OomScoreAdj"]
    assert {name: (one["soft"], one["hard"]) for name, one in service["ulimits"].items()} == {
        one["Name"]: (one["Soft"], one["Hard"]) for one in limits["Ulimits"]
    }
    assert sorted(service["tmpfs"]) == sorted(f"{path}:{options}" for path, options in limits["Tmpfs"].items())
    assert {(one["source"], one["target"]) for one in service["volumes"]} == {
        (one["Source"], one["Target"]) for one in limits["Mounts"] if one["Target"] != "/dev/pts"
    }
    assert (service["ipc"], service["cgroup"], service["restart"]) == (limits["IpcMode"], limits["CgroupnsMode"], limits["RestartPolicy"]["Name"])
    assert service["logging"]["driver"] == limits["LogConfig"]["Type"]
    profile = pathlib.Path(here.AT.home, "configs", service["security_opt"][1].partition(":")[2])
    assert service["security_opt"][0] == limits["SecurityOpt"][0] == "no-new-privileges"
    assert json.loads(profile.read_bytes()) == json.loads(limits["SecurityOpt"][1].removeprefix("seccomp="))
    for name in {one["source"] for one in service["volumes"] if one["type"] == "volume"}:
        volume = here.HOST.docker.volume(name)
        assert volume is not None
        assert document["volumes"][name] == {"name": name, "driver": volume["Driver"], "driver_opts": volume["Options"]}


# -- the play keeps it so


def test_drift_is_repaired_and_named_and_a_sandbox_is_added() -> None:
    containers = {name: stack.container_name(name) for name in (here.CAPS, here.TWO, here.OWN)}
    here.inside(here.OWN, "sh", "-c", "echo kept > /workspace/kept")
    uids = {name: here.uid(name) for name in containers}
    here.docker("update", "--memory", "200m", "--memory-swap", "200m", containers[here.CAPS])
    mounts.unmount(here.AT.lower(here.TWO))
    here.docker("rm", "-f", containers[here.OWN])
    here.docker("volume", "rm", f"{containers[here.OWN]}-originals")
    status = subprocess.run([here.SANDBOX, "status"], capture_output=True, text=True, check=False)
    assert status.returncode == 1
    assert "Memory is 209715200, not 134217728" in status.stdout

    here.tree(here.TREES / "added", 77)
    done = here.site("--tags", "env,fs", declared=[*here.DECLARED, {"name": ADDED, "originals": str(here.TREES / "added"), "working_set": "300m"}])
    assert done.code == 0, done.lines
    said = "\n".join(done.actions)
    for words in (
        (here.CAPS, "Memory is 209715200, not 134217728"),
        (here.TWO, "is not mounted"),
        (here.OWN, "has no container", f"volume {containers[here.OWN]}-originals is missing"),
        (ADDED, "has no container"),
    ):
        assert [action for action in done.actions if all(word in action for word in words)], (words, said)
    assert here.inspect(here.CAPS)["HostConfig"]["Memory"] == 128 * MIB
    assert here.inside(here.TWO, "cat", "/originals/tool").stdout == (here.TREES / "two" / "tool").read_text()
    assert here.inside(here.OWN, "cat", "/workspace/kept").stdout == "kept\n"
    assert here.inside(ADDED, "cat", "/originals/tool").returncode == 0
    assert {name: here.uid(name) for name in containers} == uids
    assert here.uid(ADDED) not in {*uids.values(), 0, 77}


def test_teardown_keeps_the_data_and_the_site_brings_all_back() -> None:
    here.inside(here.TWO, "sh", "-c", "echo kept > /workspace/kept")
    names = [*sandboxes.read_stack(here.AT)]
    done = here.play("teardown")
    assert done.code == 0, done.lines
    for name in names:
        traces = here.traces(name)
        assert (traces["containers"], traces["volumes"], traces["mounts"]) == ([], [], []), traces
    assert os.path.getsize(here.AT.image(here.TWO)) == 640 * MIB
    assert os.listdir(here.AT.delta(here.TWO)) == []
    again = here.play("teardown")
    assert (again.code, again.changed) == (0, False)

    done = here.site()
    assert done.code == 0, done.lines
    assert here.inside(here.TWO, "cat", "/workspace/kept").stdout == "kept\n"
    assert here.run("rm", "kept").returncode == 0


def test_a_sandbox_that_is_declared_no_more_is_taken_down_and_its_data_kept() -> None:
    done = here.site(declared=[])
    assert done.code == 0, done.lines
    for box in here.DECLARED:
        assert f"Took down sandbox {box['name']}: it is not declared any more; its data stays" in done.actions
        traces = here.traces(box["name"])
        assert (traces["containers"], traces["volumes"], traces["mounts"]) == ([], [], []), traces
        assert os.path.isfile(here.AT.image(box["name"]))
    refused = here.run("true")
    assert refused.returncode == 125
    assert b"is not a sandbox of this host" in refused.stderr
