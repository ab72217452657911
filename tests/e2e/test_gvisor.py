# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sandbox under gVisor, on a Debian 12 machine of its own: installed, walled, capped, and never waited for in vain.

The tests are steps of one story, in this order. Figures are printed (`make e2e` shows them).
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t

import here
import pytest
import test_seccomp
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import machine

MACHINE = "guardrails-ci-gvisor"
SANDBOX = "/opt/DockerSandboxApp/bin/sandbox"
SUPERVISED = "/opt/DockerSandboxApp/bin/dockerd-supervised"
ENGINE_CONFIG = "/etc/docker/daemon.json"
ORIGINALS = "/var/lib/dockersandbox/originals/kept"
GV, PLAIN = "gv", "plain"
CAPS = {"originals": ORIGINALS, "memory": "256m", "pids": 160, "working_set": "300m"}
DECLARED = [{"name": GV, "runtime": "gvisor", **CAPS}, {"name": PLAIN, **CAPS}]
SOURCES = "/etc/apt/sources.list.d/dockersandbox-gvisor.list"
PINS = "/etc/apt/preferences.d/dockersandbox-gvisor"
KILLED = 137
BOMB = "bomb() { bomb | bomb & }; bomb; wait; sleep 30"


def sh(command: str, *, stdin: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a shell's *command* in the machine."""
    argv = [here.DOCKER, "exec", "-i", MACHINE, "sh", "-c", command]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)


def out(command: str) -> str:
    """Return what a shell's *command* prints in the machine; it must succeed."""
    done = sh(command)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def run(*argv: str, name: str = GV, options: t.Sequence[str] = (), stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command by bin/sandbox in the machine."""
    command = [here.DOCKER, "exec", "-i", MACHINE, SANDBOX, "run", name, *options, "--", *argv]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=180, check=False)


def told(*argv: str, name: str = GV, options: t.Sequence[str] = ()) -> dict[str, t.Any]:
    """Run a command by bin/sandbox in the machine and return its JSON result."""
    done = run(*argv, name=name, options=[*options, "--json"])
    assert done.stdout, done.stderr
    return t.cast("dict[str, t.Any]", json.loads(done.stdout))


def facts(result: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what the seal of a run's bundle says."""
    script = "import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(open(sys.argv[1]))['payload']))"
    return t.cast("dict[str, t.Any]", json.loads(out(f'python3 -c "{script}" {result["bundle"]}/seal.json'))["predicate"])


def sentry() -> str:
    """Return the process that is the kernel of the sandbox."""
    pid = out(f"docker inspect --format '{{{{.State.Pid}}}}' sandbox-{GV}")
    assert pid != "0", "it does not run"
    return pid


class Inventory:
    """Plays against the machine, from this one."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.path = folder / "hosts.yml"
        variables = {"ansible_connection": "community.docker.docker", "ansible_user": "root", "ansible_python_interpreter": "/usr/bin/python3"}
        self.path.write_text(yaml.safe_dump({"all": {"hosts": {MACHINE: variables}}}), encoding="utf-8")
        (folder / "group_vars").symlink_to(here.ROOT / "inventories" / "local" / "group_vars")

    def site(self, *arguments: str) -> here.Play:
        """Run site.yml with the two sandboxes."""
        return here.play("site", "-i", str(self.path), *arguments, sandboxes=DECLARED)

    def verify(self) -> list[str]:
        """Return what the gate's own check of the sandboxes finds."""
        program = str(pathlib.Path(sys.executable).with_name("ansible"))
        environment = {**os.environ, "ANSIBLE_CONFIG": str(here.ROOT / "ansible.cfg"), "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1"}
        environment["ANSIBLE_STDOUT_CALLBACK"] = "ansible.posix.json"
        argv = [program, "all", "-i", str(self.path), "-m", "dockersandbox.guardrails.sandbox_verify", "-a", "caps=true"]
        done = subprocess.run(argv, cwd=here.ROOT, env=environment, capture_output=True, text=True, check=False)
        content = json.loads(done.stdout[done.stdout.index("{") :])
        (result,) = [result for play in content["plays"] for task in play["tasks"] for result in task["hosts"].values()]
        assert result.get("failed", False) == bool(result.get("problems")), result
        return t.cast("list[str]", result.get("problems", []))


@pytest.fixture(scope="module")
def host() -> t.Iterator[Inventory]:
    """Yield plays against a bare machine."""
    machine.down(MACHINE)
    machine.up(MACHINE, "bookworm", ["git", "make", "python3"])
    with tempfile.TemporaryDirectory() as folder:
        out(f"mkdir -p {ORIGINALS}/data && cd {ORIGINALS} && echo one > README.md && seq 100 > data/numbers")
        yield Inventory(pathlib.Path(folder))
    machine.down(MACHINE)


# -- installed


def test_a_bare_host_in_check_mode(host: Inventory) -> None:
    look = "ls -R /etc/apt /etc/docker /opt /usr/bin 2>&1"
    before = sh(look).stdout
    done = host.site("--check")
    assert done.code == 0, done.lines
    assert "Installed runsc from trixie: it was missing" in done.actions
    assert sh(look).stdout == before


def test_what_cannot_be_had_is_one_line_and_leaves_nothing(host: Inventory) -> None:
    out("printf 'Acquire::http::Proxy \"http://127.0.0.1:9\";\\nAcquire::Retries \"0\";\\n' > /etc/apt/apt.conf.d/99broken")
    done = host.site()
    out("rm /etc/apt/apt.conf.d/99broken")
    assert done.code != 0
    (line,) = done.lines
    assert line.startswith("gVisor, which a sandbox asks for, cannot be installed: ")
    for path in (SOURCES, PINS, ENGINE_CONFIG, "/opt/DockerSandboxApp", "/usr/bin/runsc"):
        assert sh(f"test -e {path}").returncode != 0, path


def test_it_is_installed_and_nothing_else_of_that_release(host: Inventory) -> None:
    done = host.site()
    assert done.code == 0, done.lines
    print(f"site.yml with a sandbox under gVisor, bare but for images: {done.seconds:.0f} s")
    assert out("dpkg-query -W -f '${Version}' runsc").startswith("0.0~2024")
    for path in (SOURCES, PINS, ENGINE_CONFIG):
        out(f"cd $(dirname {path}) && sha256sum -c --quiet $(basename {path}).sha256")
    out("apt-get update -qq")
    assert "+deb13" not in out("apt-get -s dist-upgrade; apt-cache policy bash libc6 docker.io | grep Candidate")
    assert json.loads(out("docker info --format '{{json .Runtimes.runsc.Args}}'")) == ["--network=none", "--host-uds=open", "--oci-seccomp"]
    assert out(f"docker inspect --format '{{{{.HostConfig.Runtime}}}}' sandbox-{GV} sandbox-{PLAIN}").split() == ["runsc", "runc"]


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_a_second_run_changes_nothing(host: Inventory, arguments: list[str]) -> None:
    done = host.site(*arguments)
    assert (done.code, done.changed) == (0, False), done.actions


# -- walls


def test_one_is_gvisor_and_the_other_is_not(host: Inventory) -> None:
    script = ["sh", "-c", "dmesg 2>/dev/null; cat /proc/version"]
    assert "Linux version 4.4.0" in run(*script).stdout
    assert out("uname -r") in run(*script, name=PLAIN).stdout
    assert [facts(told("true", name=name))["runtime"] for name in (GV, PLAIN)] == ["gvisor", "runc"]


def test_every_forbidden_call_is_refused(host: Inventory) -> None:
    calls = json.dumps([[name, arguments] for name, arguments, _place in test_seccomp.CALLS])
    due = [test_seccomp.ENOSYS if name in test_seccomp.NOT_THERE else test_seccomp.EPERM for name, _arguments, _place in test_seccomp.CALLS]
    names = [f"{name}{arguments}" for name, arguments, _place in test_seccomp.CALLS]
    done = run("python3", "-c", test_seccomp.PROBE, stdin=calls)
    assert done.returncode == 0, done.stderr
    assert list(zip(names, json.loads(done.stdout), strict=True)) == list(zip(names, due, strict=True))
    # What the engine's own exec starts is not under the profile here, so that the rows can fail.
    argv = [here.DOCKER, "exec", "-i", MACHINE, "docker", "exec", "-i", f"sandbox-{GV}", "python3", "-c", test_seccomp.PROBE]
    bare = subprocess.run(argv, input=calls, capture_output=True, text=True, timeout=120, check=False)
    assert bare.returncode == 0, bare.stderr
    same = sum(answer == expected for answer, expected in zip(json.loads(bare.stdout), due, strict=True))
    print(f"under gVisor: {len(due)} of {len(due)} forbidden calls refused; without the profile {same}")
    assert len(due) - same >= 26


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo x > /originals/README.md", "Read-only"),
        ("echo x > /usr/x", "Permission denied"),
        ("unshare -Ur true", "not permitted"),
        ("printf x | dd of=/proc/1/mem bs=1 seek=4198400 conv=notrunc", ""),
        ("echo max > /sys/fs/cgroup/memory/memory.limit_in_bytes", ""),
    ],
)
def test_what_must_fail_fails(host: Inventory, script: str, said: str) -> None:
    done = run("sh", "-c", script)
    assert done.returncode not in (0, 125), done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("name", sorted(set(test_seccomp.WORKS) - {"tar"}))  # its files in memory are more than the cap
def test_everyday_work_goes_on(host: Inventory, name: str) -> None:
    done = run("sh", "-c", 'rm -rf /tmp/*; exec python3 -c "$1"', "sh", test_seccomp.WORKS[name])
    assert done.returncode == 0, done.stderr


# -- streams, codes, signals


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["sh", "-c", "exec >&- 2>&-; sleep 0.5; exit 4"], 4),
    ],
)
def test_exit_codes(host: Inventory, argv: list[str], code: int) -> None:
    done = run(*argv)
    assert done.returncode == code, done.stderr


def test_input_and_arguments_arrive_as_they_are(host: Inventory) -> None:
    given = "".join(map(chr, range(1, 128))).replace("\r", "") * 500
    done = run("sh", "-c", 'cat; printf "%s|" "$@" >&2', "sh", "a b", "", "$(id)", "'{{ x }}'", stdin=given)
    assert done.stdout == given
    assert done.stderr.startswith("a b||$(id)|'{{ x }}'|")


@pytest.mark.parametrize(("word", "code"), [("TERM", 143), ("INT", 130), ("HUP", 129)])
def test_signals_reach_the_command(host: Inventory, word: str, code: int) -> None:
    loop = "echo ready; while :; do sleep 0.1; done"
    command = [here.DOCKER, "exec", MACHINE, "sh", "-c", 'echo $$; exec "$@"', "sh", SANDBOX, "run", GV, "--", "sh", "-c", loop]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid = process.stdout.readline().strip()
        assert process.stdout.readline() == "ready\n"
        out(f"kill -{word} {pid}")
        _output, said = process.communicate(timeout=60)
    assert process.returncode == code, said


def test_a_shell_on_a_terminal(host: Inventory) -> None:
    child, master = pty.fork()
    if not child:
        os.execv(here.DOCKER, [here.DOCKER, "exec", "-it", MACHINE, SANDBOX, "shell", GV])
    output = bytearray()

    def until(word: bytes) -> None:
        deadline = time.monotonic() + 30
        while word not in output:
            assert select.select([master], [], [], max(0, deadline - time.monotonic()))[0], bytes(output)
            output.extend(os.read(master, 65536))

    try:
        until(b"$ ")
        # tty(1) finds no name: the terminal is one of the host's, which has none in the sandbox.
        os.write(master, b"stty rows 33 columns 77; stty size; test -t 0 && echo a-'terminal'\n")
        until(b"33 77")
        until(b"a-terminal")
        os.write(master, b"exit 7\n")
        with contextlib.suppress(OSError):
            while os.read(master, 65536):
                pass
    finally:
        _child, status = os.waitpid(child, 0)
        os.close(master)
    assert os.waitstatus_to_exitcode(status) == 7, bytes(output)


# -- caps


@pytest.mark.parametrize(
    "argv",
    [["python3", "-c", "b = bytearray(700 << 20); print(len(b))"], ["bash", "-c", BOMB]],
    ids=["memory", "processes"],
)
def test_a_bomb_ends_its_sandbox_alone(host: Inventory, argv: list[str]) -> None:
    assert run("sh", "-c", "echo kept > /workspace/kept").returncode == 0
    command = [here.DOCKER, "exec", MACHINE, SANDBOX, "run", GV, "--json", "--", *argv]
    slowest = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            start = time.monotonic()
            assert sh(f"docker exec sandbox-{PLAIN} echo fine").stdout == "fine\n"
            slowest = max(slowest, time.monotonic() - start)
        said, errors = process.communicate()
    result = json.loads(said)
    assert result["changes"]["added"] == 1, errors
    assert argv[0] != "python3" or result["exit_code"] != 0
    seconds = sum(result["seconds"].values())
    print(f"{argv[0]} bomb under gVisor: run {seconds:.1f} s ({result['ended'] or 'ended by itself'}), another answered within {slowest:.2f} s")
    after = run("sh", "-c", "cat /workspace/kept; rm /workspace/kept")
    assert (after.returncode, after.stdout) == (0, "kept\n"), after.stderr


@pytest.mark.parametrize("name", [GV, PLAIN])
@pytest.mark.parametrize(
    ("script", "code", "least", "most"),
    [
        ("sleep 100", 143, 2, 9),
        ("trap 'exit 0' TERM; while :; do sleep 0.1; done", 0, 2, 9),
        ("trap '' TERM; sleep 100 & while :; do sleep 0.1; done", KILLED, 12, 30),
        ("exec >&- 2>&-; sleep 100", 143, 2, 9),
    ],
    ids=["ends", "says goodbye", "stays", "silent"],
)
def test_a_command_whose_time_is_up(host: Inventory, name: str, script: str, code: int, least: float, most: float) -> None:
    done = run("sh", "-c", f"exec sh -c '{script}'" if "'" not in script else script, name=name, options=["--timeout", "2", "--json"])
    result = json.loads(done.stdout)
    assert done.returncode == 124, done.stderr
    assert (result["exit_code"], result["timed_out"]) == (code, True)
    assert least <= result["seconds"]["command"] <= most
    sealed = facts(result)
    assert (sealed["timeout"], sealed["exit_code"]) == (2, code)
    assert sealed["ended"] == "the command was ended: its 2 s were up"


def test_a_command_within_its_time(host: Inventory) -> None:
    result = told("true", options=["--timeout", "60"])
    assert (result["exit_code"], result["timed_out"], result["ended"]) == (0, False, "")
    assert facts(result)["timeout"] == 60


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5", "99999999999"])
def test_a_wrong_time_is_one_line(host: Inventory, value: str) -> None:
    done = run("true", options=[f"--timeout={value}"])
    assert done.returncode == 2
    assert f"argument --timeout: {value!r} is not a whole number from 1 to 2592000 seconds" in done.stderr


# -- a sandbox that dies or hangs


@pytest.mark.parametrize("act", ["docker pause", "docker kill", "docker stop -t 0", "docker rm -f", "kill"])
def test_a_sandbox_that_is_gone_comes_back(host: Inventory, act: str) -> None:
    out(f"kill -KILL {sentry()}" if act == "kill" else f"{act} sandbox-{GV}")
    # The engine hears of the death of a process a little later.
    time.sleep(1)
    done = run("echo", "fine")
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_a_kernel_that_hangs_is_not_waited_for(host: Inventory) -> None:
    out(f"kill -STOP {sentry()}")
    start = time.monotonic()
    done = run("echo", "fine")
    print(f"a hung sandbox was given up after {time.monotonic() - start:.0f} s")
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert line == f"sandbox: sandbox {GV}: the command has not begun within 60 s: it was stopped, and comes up again with the next run"
    after = run("echo", "fine")
    assert (after.returncode, after.stdout) == (0, "fine\n"), after.stderr


def test_a_kernel_that_hangs_while_the_engine_waits_for_it(host: Inventory) -> None:
    out(f"kill -STOP {sentry()}")
    # Who has asked is gone, and the engine waits on: it answers no question about this container.
    sh(f"timeout -s KILL 3 docker exec sandbox-{GV} true")
    assert "hangs" in sh(f"{SANDBOX} status").stdout
    done = run("echo", "fine")
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_it_outlives_its_engine(host: Inventory) -> None:
    before = sentry()
    out("kill -KILL $(cat /run/docker.pid)")
    out("for i in $(seq 60); do docker version >/dev/null 2>&1 && exit 0; sleep 0.5; done; exit 1")
    assert sentry() == before
    assert run("echo", "fine").stdout == "fine\n"


# -- throw-away, weakened


def test_a_throw_away_sandbox_keeps_the_runtime(host: Inventory) -> None:
    out("mkdir -p /var/lib/dockersandbox/originals/other && echo other > /var/lib/dockersandbox/originals/other/file")
    result = told("sh", "-c", "grep -q 'Linux version 4.4.0' /proc/version && rm file", options=["--originals", "/var/lib/dockersandbox/originals/other"])
    assert result["exit_code"] == 0
    assert result["changes"] == {"added": 0, "changed": 0, "removed": 1}
    assert facts(result)["runtime"] == "gvisor"
    assert out("docker ps -a --filter name=sandbox- --format '{{.Names}}' | sort").split() == [f"sandbox-{GV}", f"sandbox-{PLAIN}"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("", []),
        ('s/"--oci-seccomp"/"--oci-seccomp=false"/', [f"sandbox {GV}: no seccomp filter is in force for its first process"]),
        ('s/"--oci-seccomp"/"--oci-seccomp", "--ignore-cgroups"/', [f"sandbox {GV}: the cap on {cap} does not hold" for cap in ("memory", "pids")]),
    ],
    ids=["as it is", "no profile", "no caps"],
)
def test_the_gate_finds_a_weaker_runtime(host: Inventory, change: str, found: list[str]) -> None:
    renew = f"{SUPERVISED} reload && sleep 2 && docker rm -f sandbox-{GV} && {SANDBOX} up"
    out(f"cp -p {ENGINE_CONFIG} /root/daemon.json")
    try:
        if change:
            # The seal of the phase would keep it from coming up.
            out(f"sed -i '{change}' {ENGINE_CONFIG} && {SUPERVISED} reload && sleep 2 && docker rm -f sandbox-{GV}")
            assert run("true").returncode == 0
        problems = host.verify()
    finally:
        out(f"cp -p /root/daemon.json {ENGINE_CONFIG} && {renew}")
    assert bool(problems) == bool(found), problems
    for text in found:
        assert [problem for problem in problems if problem.startswith(text)], problems


# -- figures


def test_figures(host: Inventory) -> None:
    def median(command: str) -> float:
        seconds = []
        for _round in range(5):
            start = time.monotonic()
            out(command)
            seconds.append(time.monotonic() - start)
        return statistics.median(seconds)

    for name in (PLAIN, GV):
        up = median(f"docker rm -f sandbox-{name} && {SANDBOX} up")
        begun = median(f"docker exec sandbox-{name} true")
        whole = [told("true", name=name)["seconds"] for _round in range(5)]
        steps = {step: statistics.median(one[step] for one in whole) for step in whole[0]}
        print(f"{name}: removed and up again {up:.2f} s, docker exec true {begun:.3f} s, run true {sum(steps.values()):.2f} s {steps}")
