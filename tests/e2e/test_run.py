# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs as an operator makes them: by bin/sandbox and by playbooks/run.yml, up to the bundle and whoever applies it."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import pathlib
import pty
import random
import shutil
import signal
import struct
import subprocess
import termios
import time
import typing as t

import here
import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import manifest, stack, workset

pytestmark = pytest.mark.usefixtures("site_with_ours")

LOOP = "echo ready; while :; do sleep 0.05; done"


def wait_for(condition: t.Callable[[], t.Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@contextlib.contextmanager
def running(*argv: str, name: str = here.TWO, options: t.Sequence[str] = ()) -> t.Iterator[subprocess.Popen[bytes]]:
    """A run that has begun: its command has written ``ready``."""
    with here.started(*argv, name=name, options=options) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def one_line(said: bytes) -> str:
    lines = said.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# -- streams, codes, signals


def test_output_is_shown_as_it_comes() -> None:
    with running("sh", "-c", "echo ready; sleep 1.5; echo last") as process:
        first = time.monotonic()
        output, said = process.communicate()
    assert output == b"last\n"
    assert time.monotonic() - first > 1.2
    assert process.returncode == 0, said


def test_input_and_output_are_bytes() -> None:
    given = random.Random(1).randbytes(1 << 20) + bytes(range(256))
    done = here.run("sh", "-c", "cat; printf '\\377err' >&2", stdin=given)
    assert done.returncode == 0, done.stderr
    assert done.stdout == given
    assert done.stderr.startswith(b"\xfferr")


@pytest.mark.parametrize(
    ("argv", "codes"),
    [
        (["true"], {0}),
        (["sh", "-c", "exit 3"], {3}),
        (["no-such-program"], {126, 127}),
        (["/etc/passwd"], {126}),
        (["sh", "-c", "kill -KILL $$"], {137}),
        (["sh", "-c", "kill -TERM $$"], {143}),
    ],
)
def test_the_exit_code_is_the_commands(argv: list[str], codes: set[int]) -> None:
    done = here.run(*argv)
    assert done.returncode in codes, done.stderr


@pytest.mark.parametrize(
    ("script", "word", "code", "output"),
    [
        (f"trap 'echo got; exit 42' INT; {LOOP}", "INT", 42, b"got\n"),
        (f"trap 'echo got; exit 43' TERM; {LOOP}", "TERM", 43, b"got\n"),
        (f"trap 'echo got; exit 44' USR1; {LOOP}", "USR1", 44, b"got\n"),
        (LOOP, "TERM", 143, b""),
    ],
)
def test_signals_reach_the_command(script: str, word: str, code: int, output: bytes) -> None:
    with running("sh", "-c", script) as process:
        process.send_signal(signal.Signals[f"SIG{word}"])
        rest, said = process.communicate(timeout=30)
    assert (process.returncode, rest) == (code, output), said


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stream_that_the_caller_closed_is_done_without(number: int) -> None:
    command = ["sh", "-c", f'exec {number}>&-; exec "$@"', "sh", here.SANDBOX, "run", here.TWO, "--", "sh", "-c", "cat; echo said; exit 3"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout == (b"" if number == 1 else b"said\n")
    assert b"Traceback" not in done.stderr


def test_json_is_one_object_on_standard_output() -> None:
    done = here.run("sh", "-c", "echo said; exit 5", options=["--json"])
    told = json.loads(done.stdout)
    assert done.returncode == told["exit_code"] == 5
    assert done.stderr == b"said\n"
    assert set(told) >= {"run", "sandbox", "exit_code", "bundle", "changes", "originals", "seconds"}
    facts = here.sealed(told["bundle"])
    assert facts["argv"] == ["sh", "-c", "echo said; exit 5"]
    assert (facts["exit_code"], facts["sandbox"], facts["run"], facts["originals"]) == (5, here.TWO, told["run"], ["unchanged"])
    assert facts["image"] == here.inspect(here.TWO)["Image"]
    assert facts["started"] <= facts["finished"]


def test_the_command_on_the_host_is_the_same() -> None:
    done = subprocess.run([f"{here.AT.home}/bin/sandbox", "run", here.TWO, "--", "id", "-u"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"%d\n" % here.uid(here.TWO)), done.stderr


# -- one at a time, and two at once


def test_a_second_run_is_refused_while_one_goes_on() -> None:
    with running("sh", "-c", "echo ready; cat; echo undisturbed") as process:
        second = here.run("true")
        assert second.returncode == 125
        assert "busy with run" in one_line(second.stderr)
        output, said = process.communicate()
    assert (process.returncode, output) == (0, b"undisturbed\n"), said


def test_two_sandboxes_see_nothing_of_one_another() -> None:
    script = "echo ready; touch /tmp/mine /dev/shm/mine mine; exec sleep 7.25"
    look = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls /tmp /dev/shm ."
    with running("sh", "-c", script) as process:
        wait_for(lambda: [line for line in here.processes(here.uid(here.TWO)) if "7.25" in line])
        other = here.run("sh", "-c", look, name=here.CAPS)
        assert process.poll() is None
        process.terminate()
        process.wait()
    assert other.returncode == 0, other.stderr
    assert b"7.25" not in other.stdout
    assert b"mine" not in other.stdout
    assert here.uid(here.TWO) != here.uid(here.CAPS)


def test_the_working_set_stays_from_run_to_run() -> None:
    first = here.told("sh", "-c", "echo kept > kept; echo gone > /tmp/gone")
    second = here.run("cat", "kept")
    assert second.stdout == b"kept\n"
    assert first["changes"]["added"] >= 1
    assert here.told("rm", "kept")["changes"]["added"] == first["changes"]["added"] - 1


# -- what a command leaves behind


def test_what_was_left_running_is_ended() -> None:
    script = "setsid sleep 991 & nohup sleep 992 >/dev/null 2>&1 & (sleep 993 &) ; sleep 994 >&- 2>&- <&- & exit 6"
    start = time.monotonic()
    done = here.run("sh", "-c", script)
    assert done.returncode == 6, done.stderr
    assert here.processes(here.uid(here.TWO)) == []
    assert time.monotonic() - start < 20


BOMB = "bomb() { bomb | bomb & }; echo ready; bomb; sleep 1"
FULL = """
import os, signal
try:
    while True:
        if not os.fork():
            signal.pause()
except OSError:
    os.write(1, b"ready\\n")
    signal.pause()
"""


@pytest.mark.parametrize(
    # A sandbox too full to take the signal is killed as a whole.
    ("argv", "codes"),
    [(["bash", "-c", BOMB], range(256)), (["python3", "-c", FULL], (143, 137))],
    ids=["bomb", "full"],
)
def test_a_fork_bomb_ends_with_its_run(argv: list[str], codes: t.Sequence[int]) -> None:
    with running(*argv, name=here.CAPS) as process:
        if 0 not in codes:
            process.terminate()
        _out, said = process.communicate(timeout=60)
    assert process.returncode in codes, said
    assert here.processes(here.uid(here.CAPS)) == [], said
    after = here.run("echo", "fine", name=here.CAPS)
    assert (after.returncode, after.stdout) == (0, b"fine\n"), after.stderr


@pytest.mark.parametrize("act", ["pause", "stop", "kill"])
def test_a_sandbox_that_was_halted_runs_again(act: str) -> None:
    here.docker(act, *(["-t", "0"] if act == "stop" else []), stack.container_name(here.CAPS))
    done = here.run("echo", "fine", name=here.CAPS)
    assert (done.returncode, done.stdout) == (0, b"fine\n"), done.stderr


def test_a_killed_run_is_cleared_by_the_next() -> None:
    with running("sh", "-c", "echo ready; exec sleep 995") as process:
        wait_for(lambda: here.processes(here.uid(here.TWO)) == ["sleep 995 "])
        process.kill()
        process.wait()
    assert here.processes(here.uid(here.TWO)) == ["sleep 995 "]
    done = here.run("echo", "fine")
    assert (done.returncode, done.stdout) == (0, b"fine\n"), done.stderr
    assert here.processes(here.uid(here.TWO)) == []


def test_a_run_killed_at_its_bundle_leaves_none() -> None:
    folder = here.AT.exports(here.TWO)
    before = set(os.listdir(folder))
    with here.started("sh", "-c", "head -c 150000000 /dev/urandom > large") as process:
        wait_for(lambda: [name for name in os.listdir(folder) if name.startswith(".")], 60)
        process.kill()
        process.wait()
    partial = set(os.listdir(folder)) - before
    assert [name for name in partial if not name.startswith(".")] == []
    assert here.run("rm", "large").returncode == 0
    assert [name for name in os.listdir(folder) if name.startswith(".")] == []
    assert here.docker("ps", "-aq", "--filter", f"name={stack.container_name(here.TWO)}.").split() == []


# -- a throw-away sandbox


def thrown_away() -> dict[str, t.Any]:
    return here.traces(f"{here.TWO}.")


def test_a_throw_away_sandbox_is_gone_afterwards(tmp_path_factory: pytest.TempPathFactory) -> None:
    originals = here.tree(here.TREES / "thrown", 2345)
    before = here.digest(originals)
    script = "id -u; rm README.md; echo new > new; echo x >> data/numbers.csv; rm -rf data/deep; ls /originals/README.md; exit 9"
    done = here.told("sh", "-c", script, options=["--originals", str(originals)])
    assert done["exit_code"] == 9
    assert here.digest(originals) == before
    assert not any(thrown_away().values()), thrown_away()
    assert done["changes"] == {"added": 1, "changed": 1, "removed": 3}
    facts = here.sealed(done["bundle"])
    assert (facts["sandbox"], facts["baseline"]) == (here.TWO, before)
    assert done["bundle"].startswith(here.AT.exports(here.TWO))
    shutil.rmtree(originals)


@pytest.mark.parametrize("moment", [0.25, 0.35, 0.45, 0.5, 0.55, 0.65])
def test_a_throw_away_run_killed_at_any_moment_is_cleared_by_the_next(moment: float) -> None:
    with here.started("true", options=["--originals", str(here.TREES / "caps")]) as process:
        time.sleep(moment)
        process.kill()
    done = here.run("true")
    assert done.returncode == 0, done.stderr
    assert not any(thrown_away().values()), thrown_away()


@pytest.mark.parametrize("word", ["INT", "TERM"])
def test_a_signal_before_the_command_has_begun_clears_up(word: str) -> None:
    originals = here.TREES / "large"
    originals.mkdir()
    with (originals / "file").open("wb") as file:
        file.truncate(3 << 30)
    with here.started("true", options=["--originals", str(originals)]) as process:
        wait_for(lambda: [path for path in thrown_away()["folders"] if path.startswith(here.AT.sandboxes)])
        process.send_signal(signal.Signals[f"SIG{word}"])
        output, said = process.communicate(timeout=30)
    shutil.rmtree(originals)
    assert (process.returncode, output) == (128 + signal.Signals[f"SIG{word}"], b"")
    assert one_line(said) == f"sandbox: ended by SIG{word}"
    assert not any(thrown_away().values()), thrown_away()


def test_a_throw_away_sandbox_that_was_killed_is_cleared_by_the_next_run() -> None:
    originals = here.tree(here.TREES / "killed")
    before = here.digest(originals)
    with running("sh", "-c", "echo ready; rm -rf data; exec sleep 996", options=["--originals", str(originals)]) as process:
        process.kill()
        process.wait()
    left = thrown_away()
    assert all(left.values()), left
    assert here.run("true").returncode == 0
    assert not any(thrown_away().values()), thrown_away()
    assert here.digest(originals) == before
    shutil.rmtree(originals)


# -- originals


def test_originals_stay_bit_identical() -> None:
    originals = here.TREES / "own"
    before = here.digest(originals)
    script = "rm -rf -- * ; mkdir data; echo > README.md; ln -s / link; for f in /originals/*; do chmod 777 $f; echo > $f; done; exit 0"
    assert here.run("bash", "-c", script, name=here.OWN).returncode == 0
    assert here.digest(originals) == before
    assert here.run("bash", "-c", "cp -a /originals/. .", name=here.OWN).returncode == 0


def test_changed_originals_are_named_and_refused_until_sealed_anew() -> None:
    originals = here.TREES / "two"
    victim = originals / "data" / "numbers.csv"
    about, content = victim.stat(), victim.read_bytes()
    with running("sh", "-c", "echo ready; cat") as process:
        victim.write_bytes(content[:-2] + b"!\n")
        os.utime(victim, ns=(about.st_atime_ns, about.st_mtime_ns))
        _out, said = process.communicate()
    assert process.returncode == 125
    assert b"data/numbers.csv" in said
    bundle = max(glob.glob(f"{here.AT.exports(here.TWO)}/2*"))
    facts = here.sealed(bundle)
    assert facts["exit_code"] == 0
    assert "data/numbers.csv" in facts["originals"][0]

    refused = here.run("true")
    assert refused.returncode == 125
    assert "data/numbers.csv" in one_line(refused.stderr)
    assert bundle == max(glob.glob(f"{here.AT.exports(here.TWO)}/2*"))

    unsealed = here.site("--tags", "fs")
    assert unsealed.code != 0
    assert ["data/numbers.csv" in line for line in unsealed.lines] == [True], unsealed.lines

    done = here.site("--tags", "fs", fs_reseal_reason="a new delivery")
    assert done.code == 0, done.lines
    assert [action for action in done.actions if "anew: a new delivery" in action and here.TWO in action]
    known = here.HOST.working_set(here.TWO, here.sandboxes.read_stack(here.AT)[here.TWO])
    assert isinstance(known, workset.WorkingSet)
    baseline = known.baseline()
    assert baseline is not None
    assert (baseline[0], baseline[1]["reason"]) == (here.digest(originals), "a new delivery")
    assert here.run("true").returncode == 0


# -- bundles

WORK = r"""
set -eu
rm README.md; sed -i 's/^7,/seven,/' data/numbers.csv; mv tool renamed; chmod 0640 renamed; printf '\0\1\377' > binary
mkdir -p empty/folder; ln -s nowhere dangling; rm -rf data/deep; echo file > data/deep; echo x > "$(printf 'a \n\377')"
"""
UNDO = "find . -mindepth 1 -delete; cp -a /originals/. ."


def told_without_owners(folder: pathlib.Path) -> list[t.Any]:
    return [(path, *entry[1:3], *entry[5:]) for path, entry in sorted(manifest.build(folder).entries.items())]


@pytest.fixture(scope="module")
def bundle() -> t.Iterator[str]:
    """A bundle of work that has something of everything."""
    done = here.told("bash", "-c", WORK)
    assert done["exit_code"] == 0
    yield done["bundle"]
    here.run("bash", "-c", UNDO)


def test_a_bundle_brings_the_work_to_a_fresh_copy(bundle: str, tmp_path: pathlib.Path) -> None:
    subprocess.run(["cp", "-a", here.TREES / "two", tmp_path / "plain"], check=True)
    subprocess.run(["git", "apply", f"{bundle}/changes.patch"], cwd=tmp_path / "plain", check=True)
    assert not (tmp_path / "plain" / "README.md").exists()
    assert "seven," in (tmp_path / "plain" / "data" / "numbers.csv").read_text()
    assert (tmp_path / "plain" / "binary").read_bytes() == b"\0\1\377"
    assert os.readlink(tmp_path / "plain" / "dangling") == "nowhere"

    subprocess.run(["cp", "-a", here.TREES / "two", tmp_path / "copy"], check=True)
    subprocess.run([here.SANDBOX, "apply", bundle, tmp_path / "copy"], check=True, capture_output=True)
    merged = pathlib.Path(here.docker("volume", "inspect", "-f", "{{.Mountpoint}}", f"{stack.container_name(here.TWO)}-workspace").strip())
    assert told_without_owners(tmp_path / "copy") == told_without_owners(merged)
    assert {os.lstat(path).st_uid for path in (tmp_path / "copy").rglob("*")} == {1234}


def test_a_flipped_bit_in_a_bundle_is_found_by_name(bundle: str) -> None:
    def flipped(path: pathlib.Path) -> None:
        content = bytearray(path.read_bytes() or b"x")
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    files = sorted(path.relative_to(bundle) for path in pathlib.Path(bundle).rglob("*") if path.is_file())
    assert {str(path) for path in files} > {"changes.patch", "manifest.jsonl", "metadata.jsonl", "seal.json"}
    copies = {}
    try:
        for number, path in enumerate(files):
            copies[path] = f"{bundle}-flipped-{number}-"
            shutil.copytree(bundle, copies[path])
            flipped(pathlib.Path(copies[path], path))
        done = here.play("verify")
    finally:
        for copy in copies.values():
            shutil.rmtree(copy, ignore_errors=True)
    assert done.code != 0
    for path, copy in copies.items():
        assert [line for line in done.lines if copy in line and path.name in line], (str(path), done.lines)
    assert not [line for line in done.lines if f"{bundle}:" in line or f"{bundle}/" in line]
    after = here.play("verify")
    assert after.code == 0, after.lines


def test_apply_refuses_a_bundle_that_was_tampered_with(bundle: str, tmp_path: pathlib.Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    with (tmp_path / "bundle" / "changes.patch").open("ab") as file:
        file.write(b"\n")
    here.tree(tmp_path / "copy")
    before = here.digest(tmp_path / "copy")
    done = subprocess.run([here.SANDBOX, "apply", tmp_path / "bundle", tmp_path / "copy"], capture_output=True, check=False)
    assert done.returncode == 125
    assert "changes.patch" in one_line(done.stderr)
    assert here.digest(tmp_path / "copy") == before


# -- the terminal, the playbook, the table


def test_a_shell_on_a_terminal() -> None:
    child, master = pty.fork()
    if child == 0:
        os.execv(here.SANDBOX, [here.SANDBOX, "shell", here.TWO])
    try:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        output = bytearray()

        def until(word: bytes) -> None:
            end = time.monotonic() + 30
            while word not in output:
                assert time.monotonic() < end, bytes(output)
                output.extend(os.read(master, 65536))

        until(b"$ ")
        os.write(master, b"stty size; tty\n")
        until(b"33 101")
        until(b"/dev/pts/")
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 122, 0, 0))
        os.kill(child, signal.SIGWINCH)
        time.sleep(0.5)
        os.write(master, b"stty size\n")
        until(b"44 122")
        os.write(master, b"echo from-the-shell > f; exit 7\n")
        with contextlib.suppress(OSError):
            while chunk := os.read(master, 65536):
                output.extend(chunk)
    finally:
        _pid, status = os.waitpid(child, 0)
        os.close(master)
    assert os.waitstatus_to_exitcode(status) == 7, bytes(output)
    assert here.run("sh", "-c", "cat f; rm f").stdout == b"from-the-shell\n"


def test_the_playbook_reads_its_job_as_data(tmp_path: pathlib.Path) -> None:
    ran = tmp_path / "ran"
    word = f"{{{{ lookup('pipe', 'touch {ran}') }}}}"
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"sandbox": here.TWO, "argv": ["sh", "-c", 'printf %s "$1"; exit 8', "{% raw %}", word]}))
    done = here.play("run", run_file=str(job))
    assert done.code == 0, done.lines
    assert not ran.exists()
    result = next(result for result in done.results if "exit_code" in result)
    assert (result["exit_code"], result["stdout"]) == (8, word)
    assert here.sealed(result["bundle"])["argv"][-1] == word
    assert [message for message in done.results if "exit code 8" in str(message.get("msg")) and result["bundle"] in message["msg"]]


def test_the_status_is_a_table_or_json() -> None:
    shown = subprocess.run([here.SANDBOX, "status"], capture_output=True, text=True, check=True).stdout
    for word in ("P0", "bootstrap", "P1", "env", "P3", "fs", "sealed", "Next:", *(box["name"] for box in here.DECLARED)):
        assert word in shown, shown
    with running("sh", "-c", "echo ready; cat") as process:
        known = json.loads(subprocess.run([here.SANDBOX, "status", "--json"], capture_output=True, check=True).stdout)
        process.communicate()
    assert known["ok"] is True
    boxes = {box["sandbox"]: box for box in known["sandboxes"]}
    assert boxes[here.TWO]["busy"].startswith("run 2")
    assert boxes[here.CAPS]["busy"] is None
    assert boxes[here.OWN]["uid"] == here.OWNER
    assert boxes[here.TWO]["bundles"] == len(glob.glob(f"{here.AT.exports(here.TWO)}/2*")) - 1
