# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two sandboxes beside one another: whatever one does to itself, the other has its limits, its share and its answer."""

from __future__ import annotations

import collections.abc
import contextlib
import os
import pathlib
import subprocess
import threading
import time
import typing as t

import here
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import run, sandboxes, stack

pytestmark = pytest.mark.usefixtures("site_with_ours")

MIB = 1 << 20
CORES = os.cpu_count() or 1
ANSWER = 2.0  # seconds
SECONDS = 3  # that a bomb goes on


class Box(t.NamedTuple):
    """A throw-away sandbox."""

    name: str
    description: stack.Description

    def said(self, *argv: str, user: str | None = None, timeout: float = 30) -> str:
        """Return what a command in it prints."""
        return here.HOST.docker.execute(stack.container_name(self.name), list(argv), user=user, timeout=timeout)[1].decode()

    def python(self, script: str, *arguments: str, user: str | None = None) -> str:
        """Return what Python in it prints."""
        return self.said("python3", "-c", script, *arguments, user=user).strip()


@contextlib.contextmanager
def thrown_away(originals: pathlib.Path) -> collections.abc.Iterator[Box]:
    """A throw-away sandbox over *originals*, as small as can be, but with all processors."""
    small = {"nano_cpus": CORES * 10**9, "memory": 128 * MIB, "pids": 64, "working_set": 300 * MIB}
    with run.throwaway(here.HOST, here.TWO, {**run.described(here.HOST, here.TWO), **small}, str(originals)) as (name, description):
        yield Box(name, description)


@pytest.fixture(scope="module")
def two() -> collections.abc.Iterator[tuple[Box, Box]]:
    """Two throw-away sandboxes over one tree, each of which may have all processors."""
    originals = here.tree(here.TREES / "isolated")
    with thrown_away(originals) as one, thrown_away(originals) as other:
        yield one, other


# -- per-user limits of the kernel

# Each prints how many it got before the kernel said no. What was taken goes with the process.
TAKE = {
    "inotify instances": """
        libc = ctypes.CDLL(None, use_errno=True)
        while libc.inotify_init1(0) >= 0: count += 1
    """,
    "pending signals": """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
        libc = ctypes.CDLL(None, use_errno=True)
        while libc.sigqueue(os.getpid(), signal.SIGRTMIN, ctypes.c_void_p(0)) == 0: count += 1
    """,
    "message queues": """
        libc = ctypes.CDLL(None, use_errno=True)
        while libc.mq_open(b"/queue%d" % count, os.O_CREAT | os.O_RDWR, 0o600, None) >= 0: count += 1
    """,
}
HEAD = "import ctypes, os, signal, sys\ncount = 0\n"
HOLD = "\nprint(count, flush=True)\nif len(sys.argv) > 1: signal.pause()\n"


def taker(what: str) -> str:
    body = "\n".join(line[8:] for line in TAKE[what].splitlines())
    return HEAD + body + HOLD


@contextlib.contextmanager
def exhausted(box: Box, what: str) -> collections.abc.Iterator[int]:
    """Take all that the kernel gives the user of *box*, for as long as the block runs; yield how many that was."""
    command = [here.DOCKER, "exec", stack.container_name(box.name), "python3", "-c", taker(what), "hold"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            box.said("pkill", "-KILL", "python3")


@pytest.mark.parametrize("what", TAKE)
def test_a_limit_of_the_kernel_that_one_has_used_up_is_whole_for_the_other(two: tuple[Box, Box], what: str) -> None:
    one, other = two
    whole = int(other.python(taker(what)))
    with exhausted(one, what) as taken:
        assert taken > 0
        assert int(other.python(taker(what))) == whole
        # With one user for both there would be nothing left.
        shared = f"{one.description['uid']}:{one.description['gid']}"
        assert int(other.python(taker(what), user=shared)) == 0


def test_keys_are_nobodys(two: tuple[Box, Box]) -> None:
    add_key = {"x86_64": 248, "aarch64": 217}[os.uname().machine]
    script = f"import ctypes; print(ctypes.CDLL(None).syscall({add_key}, b'user', b'k', b'v', 1, -4))"
    assert {box.python(script) for box in two} == {"-1"}


def test_uids_are_their_own(two: tuple[Box, Box]) -> None:
    given = [box.description["uid"] for box in two] + [here.uid(name) for name in sandboxes.read_stack(here.AT)]
    assert len(set(given)) == len(given)
    assert 0 not in given


def writable(box: Box) -> set[tuple[str, str]]:
    """Return device and root of every mount that is writable in it."""
    found = set()
    for line in box.said("cat", "/proc/self/mountinfo").splitlines():
        fields, _dash, rest = line.partition(" - ")
        parts = fields.split()
        if "rw" in parts[5].split(",") and "rw" in rest.split()[2].split(","):
            found.add((parts[2], parts[3]))
    return found


def test_no_writable_place_is_common_to_both(two: tuple[Box, Box]) -> None:
    one, other = map(writable, two)
    assert len(one) > 5
    assert one & other == set()
    for box, mark in zip(two, ("one", "other"), strict=True):
        box.said("sh", "-c", f"for d in /tmp /home/agent /dev/shm /workspace; do echo {mark} > $d/mark; done")
    for box, mark in zip(two, ("one", "other"), strict=True):
        assert box.said("sh", "-c", "cat /tmp/mark /home/agent/mark /dev/shm/mark /workspace/mark").split() == [mark] * 4


# -- shares

BUSY = """
import os, sys, time
end = time.time() + float(sys.argv[2])
for _ in range(int(sys.argv[1])):
    if not os.fork():
        while time.time() < end: pass
        os._exit(0)
while True:
    try: os.wait()
    except ChildProcessError: break
print(os.times().children_user + os.times().children_system)
"""


def test_two_busy_ones_have_half_of_the_machine_each(two: tuple[Box, Box]) -> None:
    used: dict[str, float] = {}

    def work(box: Box, processes: int) -> None:
        used[box.name] = float(box.python(BUSY, str(processes), "5"))

    # One has many more processes than the other: what is shared is by sandbox.
    workers = [threading.Thread(target=work, args=(box, count * CORES)) for box, count in zip(two, (8, 1), strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    share = used[two[0].name] / sum(used.values())
    print(f"processor time of the one with eight times the processes: {share:.0%}")
    assert 0.35 < share < 0.65, used


def test_memory_that_one_holds_is_not_touched_by_the_hunger_of_the_other(two: tuple[Box, Box]) -> None:
    one, other = two
    script = "import time; held = bytearray(b'x') * (80 << 20); print('held', flush=True); time.sleep(4); print(held.count(b'x') >> 20)"
    command = [here.DOCKER, "exec", stack.container_name(other.name), "python3", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert one.python("b = bytearray(500 << 20); print(len(b))") == ""
        assert holder.communicate()[0] == "80\n"


# -- bombs

BOMBS = {
    "fork": ["bash", "-c", "bomb() { bomb | bomb & }; bomb; while :; do sleep 0.1; done"],
    "memory": ["sh", "-c", "while :; do python3 -c 'b = [bytearray(8 << 20) for _ in iter(int, 1)]'; done"],
    "disk": ["sh", "-c", "while :; do i=0; while head -c 20000000 /dev/zero > fill$i; do i=$((i+1)); done; sync; rm -f fill*; done"],
    "inodes": ["python3", "-c", "import os\nos.mkdir('many')\nn = 0\nwhile True:\n try: os.symlink('x', f'many/{n}')\n except OSError: n = 0\n n += 1"],
    "inotify": [
        "python3",
        "-c",
        "import ctypes, os, tempfile\nlibc = ctypes.CDLL(None)\ntop = tempfile.mkdtemp(dir='/workspace')\nn = 0\nfd = libc.inotify_init1(0)\n"
        "while True:\n n += 1\n try: os.mkdir(f'{top}/{n}')\n except OSError: n = 0\n"
        " libc.inotify_add_watch(fd, f'{top}/{n}'.encode(), 0xfff)\n libc.inotify_init1(0)",
    ],
}  # fmt: skip


@contextlib.contextmanager
def going_off(bomb: str) -> collections.abc.Iterator[Box]:
    """A throw-away sandbox in which a bomb goes off while the block runs."""
    with thrown_away(here.TREES / "isolated") as box:
        container = stack.container_name(box.name)
        command = [here.DOCKER, "exec", "--workdir", "/workspace", container, *BOMBS[bomb]]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(0.5)
            try:
                yield box
            finally:
                here.HOST.docker.kill(container)
                process.wait(30)


def test_bombs_stay_in_their_sandbox_while_others_answer(two: tuple[Box, Box]) -> None:
    neighbour = two[1]
    kept = here.TREES / "host"
    for bomb in BOMBS:
        slowest = 0.0
        with going_off(bomb):
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                start = time.monotonic()
                answer = neighbour.said("sh", "-c", "echo work > fill && cat fill && rm fill && head -c 5 /workspace/README.md", timeout=10 * ANSWER)
                slowest = max(slowest, time.monotonic() - start)
                assert answer.startswith("work\n# Ex"), (bomb, answer)
                # The machine itself can make processes and files, and has memory.
                kept.write_bytes(b"x" * MIB)
                assert subprocess.run(["/bin/true"], check=False).returncode == 0
                assert here.inspect(neighbour.name)["State"]["Running"]
        print(f"beside a bomb of {bomb}: slowest answer {slowest:.2f} s")
        assert slowest < ANSWER, bomb
    kept.unlink()
