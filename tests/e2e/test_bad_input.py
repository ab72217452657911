# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input, as an operator gives it: one clear line for each thing that is wrong, and nothing changed.

A play names all that is wrong at once, so each table here is one play, and each of its rows must have one line.
"""

from __future__ import annotations

import collections.abc
import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import socketserver
import subprocess
import threading
import typing as t

import here
import pytest

BAD = here.TREES / "bad"
UNFIT = "This host is not fit for sandboxes:"
# In mounts of its own a command sees another engine, a full folder; the machine does not.
PRIVATE = ("unshare", "--mount", "--propagation", "private", "sh", "-ec")


@pytest.fixture(scope="module", autouse=True)
def at_work(site_with_ours: here.Play) -> None:
    """A host on which something has run."""
    assert here.run("true").returncode == 0


@pytest.fixture(autouse=True)
def unchanged(at_work: None) -> collections.abc.Iterator[None]:
    """Nothing is changed by what is refused."""
    before = here.state()
    yield
    after = here.state()
    for key in before:
        assert after[key] == before[key], key


def matched(lines: list[str], due: dict[str, str]) -> None:
    """Each pattern of *due* (by what it is for) matches one line, and each line is matched."""
    for word, pattern in due.items():
        assert len([line for line in lines if re.search(pattern, line)]) == 1, (word, pattern, lines)
    left = [line for line in lines if not any(re.search(pattern, line) for pattern in due.values())]
    assert left == []


def box(name: t.Any, originals: t.Any = "/srv", **keys: t.Any) -> dict[str, t.Any]:
    return {"name": name, "originals": originals, **keys}


def one_line(done: subprocess.CompletedProcess[bytes], pattern: str, code: int = 125) -> None:
    lines = done.stderr.decode().splitlines()
    assert done.returncode == code, lines
    assert len(lines) == 1, lines
    assert re.search(pattern, lines[0]), lines


# -- what is declared

DECLARATIONS: dict[str, tuple[t.Any, str]] = {
    "slash": (box("a/b"), r"'a/b' is not a sandbox name: 1 to 32 of"),
    "upper case": (box("Upper"), r"'Upper' is not a sandbox name"),
    "300 characters": (box("n" * 300), r"300 characters\) is not a sandbox name"),
    "no name": ({"originals": "/srv"}, r"name: missing"),
    "twice": (box("twice"), r"sandbox twice: declared twice"),
    "memory 0": (box("zero", memory="0"), r"sandbox zero: memory: '0' is not a size: write .* such as 512m"),
    "memory in elephants": (box("zoo", memory="12 elephants"), r"sandbox zoo: memory: '12 elephants' is not a size"),
    "memory too small": (box("tiny", memory="4k"), r"sandbox tiny: memory: '4k' is too little: at least 64m"),
    "working set too small": (box("narrow", working_set="299m"), r"sandbox narrow: working_set: '299m' is too little: at least 300m"),
    "preset": (box("odd", preset="nothing"), r"sandbox odd: preset: 'nothing' is not a preset there is: use claude-code, codex, generic"),
    "colon": (box("colon", "/srv/a:b"), r"sandbox colon: originals: '/srv/a:b' has a colon, .*: rename"),
    "comma": (box("comma", "/srv/a,b"), r"sandbox comma: originals: '/srv/a,b' has a comma"),
    "relative": (box("near", "srv"), r"sandbox near: originals: 'srv' is not an absolute path"),
    "no originals": ({"name": "none"}, r"sandbox none: originals: missing"),
    "unknown key": (box("extra", colour="red"), r"sandbox extra: colour is not a key of a sandbox: use name, "),
    "no mapping": ("word", r"a mapping with a name is due, not str"),
    "cpus": (box("idle", cpus=0), r"sandbox idle: cpus: 0 is not a number of processors"),
}


def test_declarations_are_refused_each_in_a_line() -> None:
    rows = [row for row, _pattern in DECLARATIONS.values()]
    done = here.site(declared=[*rows, box("twice")])
    assert done.code == 2
    matched(done.lines, {word: pattern for word, (_row, pattern) in DECLARATIONS.items()})


def bad_trees() -> dict[str, tuple[dict[str, t.Any], str]]:
    """Make originals that must be refused, and return a sandbox over each and the line that is due."""
    BAD.mkdir(parents=True)
    (BAD / "file").write_text("x")
    (BAD / "root").symlink_to("/")
    (BAD / "to-own").symlink_to(here.TREES / "two")
    several = here.tree(BAD / "several", 5)
    os.chown(several / "tool", 6, 6)
    os.chown(several / "data" / "numbers.csv", 7, 5)
    special = here.tree(BAD / "special", 5)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(special / "a-socket"))
    os.mkfifo(special / "data" / "a-fifo")
    os.mknod(special / "a-device", 0o20600, os.makedev(1, 3))
    for path in special.rglob("*"):
        os.lchown(path, 5, 5)
    here.tree(BAD / "as-root")
    here.tree(BAD / "as-owner", 3456)
    (here.tree(BAD / "mounted", 5) / "inner").mkdir()
    own = f"{here.AT.data}/originals"
    return {
        "missing": (box("missing", f"{BAD}/none"), rf"sandbox missing: originals {BAD}/none: No such file.*: make the folder"),
        "file": (box("file", f"{BAD}/file"), rf"{BAD}/file: is not a folder"),
        "link to /": (box("link", f"{BAD}/root"), rf"{BAD}/root: is or passes through a symbolic link to /: name the real path"),
        "link": (box("link2", f"{BAD}/to-own/data"), rf"{BAD}/to-own/data: is or passes through a symbolic link to {here.TREES}/two/data"),
        "home": (box("home", here.AT.home), rf"{here.AT.home}: is the home of this project or inside it"),
        "in the home": (box("inhome", f"{here.AT.home}/configs"), rf"{here.AT.home}/configs: is the home .* keep originals elsewhere, or below {own}"),
        "data": (box("data", f"{here.AT.data}/sandboxes"), rf"{here.AT.data}/sandboxes: is the data folder"),
        "around": (box("around", "/opt"), rf"/opt: holds the home of this project \({here.AT.home}\)"),
        "root": (box("slash", "/"), r"/: holds the home of this project"),
        "several owners": (box("several", f"{several}"), rf"{several}: has several owners \(7 of 5:5, 1 of [67]:[56], 1 of [67]:[56]\)"),
        "special": (
            box("special", f"{special}"),
            rf"{special}: has what is no file, folder or link: "
            r"(?=.*a-device \(\w[\w ]*\))(?=.*a-socket \(socket\))(?=.*data/a-fifo \(fifo\)).*: remove it",
        ),
        "owner is root": (box("asroot", f"{BAD}/as-root", run_as="owner"), r"sandbox asroot: run_as: owner: .* belongs to root"),
        "owner twice": (box("two2", f"{BAD}/as-owner", run_as="owner"), r"sandbox two2: run_as: owner: uid 3456 is that of sandbox two1 already"),
        "mount inside": (box("mounted", f"{BAD}/mounted"), rf"{BAD}/mounted: {BAD}/mounted/inner is mounted inside"),
    }


def test_originals_are_refused_each_in_a_line() -> None:
    rows = bad_trees()
    try:
        declared = [*(row for row, _pattern in rows.values()), box("two1", f"{BAD}/as-owner", run_as="owner")]
        prefix = (*PRIVATE, 'mount -t tmpfs none "$0" && exec "$@"', f"{BAD}/mounted/inner")
        done = here.play("site", prefix=prefix, sandboxes=here.operators() + declared)
        assert done.code == 2
        matched(done.lines, {word: pattern for word, (_row, pattern) in rows.items()})
        for word in ("missing", "file", "link to /", "several owners", "special", "in the home"):
            row, pattern = rows[word]
            one_line(here.run("true", options=["--originals", row["originals"]]), pattern.removeprefix(f"sandbox {row['name']}: "))
        one_line(here.run("true", options=["--originals", "/srv/a:b"]), "has a colon")
    finally:
        shutil.rmtree(BAD)


def test_originals_that_root_may_not_read_are_refused() -> None:
    folder = here.tree(BAD, 5)
    (folder / "data").chmod(0)
    try:
        # Root of a container or of a network file system has no say over modes.
        less = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        done = here.play("site", prefix=less, sandboxes=[*here.operators(), box("shut", str(folder))])
        assert done.code == 2
        matched(done.lines, {"shut": rf"sandbox shut: originals {folder}: cannot be read at data"})
    finally:
        shutil.rmtree(BAD)


# -- commands


@pytest.mark.parametrize(
    ("argv", "pattern"),
    [
        (["run", here.TWO, "--"], "argv: the command is empty: give at least the program"),
        (["run", here.TWO], "argv: the command is empty"),
        (["run", here.TWO, "--", ""], r"argv\[0\]: the program's name is empty"),
        (["run", here.TWO, "--", "echo", b"\xff"], r"argv\[1\]: is not UTF-8"),
        (["run", "nobody", "--", "true"], r"nobody: is not a sandbox of this host: there is default, e2e-caps"),
        (["run", "../default", "--", "true"], r"\.\./default: is not a sandbox of this host"),
        (["shell", here.TWO], "shell: needs a terminal; use run"),
        (["apply", "/nonexistent", "/tmp"], "/nonexistent"),
        (["run", here.TWO, "--originals", "near", "--", "true"], "'near' is not an absolute path"),
    ],
)
def test_a_command_is_refused_in_one_line(argv: list[t.Any], pattern: str) -> None:
    one_line(subprocess.run([here.SANDBOX, *argv], stdin=subprocess.DEVNULL, capture_output=True, check=False), pattern)


JOBS: dict[str, tuple[str, str]] = {
    "string.json": ('{"sandbox": "e2e-two", "argv": "ls -l"}', r'argv: a list of texts is due, such as \["ls", "-l"\], not str'),
    "empty.json": ('{"sandbox": "e2e-two", "argv": []}', r"argv: the command is empty"),
    "nul.json": ('{"sandbox": "e2e-two", "argv": ["a\\u0000b"]}', r"argv\[0\]: has a NUL character"),
    "number.json": ('{"sandbox": "e2e-two", "argv": ["sleep", 1]}', r"argv\[1\]: a text is due, not int"),
    "broken.json": ('{"sandbox": ', r"is not JSON"),
    "list.json": ("[]", r"an object is due, such as"),
    "extra.json": ('{"sandbox": "e2e-two", "argv": ["true"], "user": "root"}', r"user is not a key of a job: use argv, originals, sandbox"),
    "comma.json": ('{"sandbox": "e2e-two", "argv": ["true"], "originals": "/a,b"}', r"'/a,b' has a comma"),
    "none.json": ("", r"none.json: No such file or directory: give -e run_file=job.json"),
}


def test_jobs_are_refused_each_in_a_line(tmp_path: pathlib.Path) -> None:
    due = {}
    for name, (content, pattern) in JOBS.items():
        due[name] = rf"^(Task failed: )?run_file: {tmp_path}/{name}: .*{pattern}" if content else pattern
        if content:
            (tmp_path / name).write_text(content)
    copy = checkout(tmp_path)
    (copy / "playbooks" / "jobs.yml").write_text(
        json.dumps(
            [
                {
                    "hosts": "all",
                    "gather_facts": False,
                    "tasks": [
                        {
                            "dockersandbox.guardrails.run_file": {"path": f"{tmp_path}/{{{{ item }}}}"},
                            "loop": list(JOBS),
                            "ignore_errors": True,
                        }
                    ],
                }
            ]
        )
    )
    done = here.play("jobs", folder=copy)
    matched([line for result in done.results for item in result["results"] for line in item["msg"].splitlines()], due)

    done = here.play("run", run_file=str(tmp_path / "string.json"))
    assert done.code == 2
    matched(done.lines, {"string": due["string.json"]})


# -- configuration files


def checkout(folder: pathlib.Path) -> pathlib.Path:
    """Return a copy of what an operator edits, which uses the same collection."""
    copy = folder / "checkout"
    for name in ("configs", "inventories", "playbooks"):
        shutil.copytree(here.ROOT / name, copy / name, symlinks=True)
    shutil.copy(here.ROOT / "ansible.cfg", copy)
    (copy / ".collections").symlink_to(here.ROOT / ".collections")
    return copy


def test_configuration_files_are_refused_each_in_a_line(tmp_path: pathlib.Path) -> None:
    copy = checkout(tmp_path)
    (copy / "configs" / "sandboxes.yml").write_text("sandboxes:\n  - {name: A/b, originals: /srv, memory: 12 elephants}\n")
    (copy / "configs" / "env.yml").write_text("env_serial: soon\nenv_colour: red\n")
    (copy / "configs" / "fs.yml").write_text("fs_example: near\n")
    done = here.play("site", folder=copy)
    assert done.code == 2
    matched(
        done.lines,
        {
            "name": r"configs/sandboxes.yml: sandboxes\[0\].name: 'A/b' is not what is due: 1 to 32 of a-z",
            "memory": r"configs/sandboxes.yml: sandboxes\[0\].memory: '12 elephants' is not what is due: Bytes, or a whole number",
            "type": r"configs/env.yml: env_serial: 'soon' is not of type 'integer'",
            "key": r"configs/env.yml: top: .*'env_colour' was unexpected",
            "pattern": r"configs/fs.yml: fs_example: 'near'",
        },
    )


def test_a_configuration_file_that_is_not_yaml_is_refused(tmp_path: pathlib.Path) -> None:
    copy = checkout(tmp_path)
    (copy / "configs" / "sandboxes.yml").write_text("sandboxes: [\n")
    done = here.play("site", folder=copy)
    # ansible-core reads it as group_vars, before any task of ours, and does not say which file it is.
    assert (done.code, done.results) == (4, [])
    assert len(done.said.splitlines()) == 1
    assert "YAML parsing failed" in done.said


# -- no space left


def test_a_disk_that_is_too_small_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "data").mkdir()
    prefix = (*PRIVATE, 'mount -t tmpfs -o size=8m none "$0" && exec "$@"', str(tmp_path / "data"))
    done = here.play("site", "--tags", "bootstrap", prefix=prefix, sandboxes=[], bootstrap_data=str(tmp_path / "data"))
    assert done.code == 2
    assert done.lines[0] == UNFIT
    # An older kernel finds more amiss with a tmpfs.
    found = [line for line in done.lines[1:] if not line.startswith(("- overlayfs:", "- idmapped mounts:"))]
    matched(found, {"disk": rf"^- disk: 8 MiB free at {tmp_path}/data, 2048 MiB are wanted; make room, or change bootstrap_min_free_disk"})


@pytest.mark.parametrize(
    ("full", "size", "options", "said"),
    [
        (f"{here.AT.home}/exports", "256k", [], "No space left on device"),
        (here.AT.sandboxes, "64k", ["--originals", str(BAD)], "No space left on device"),
        (here.AT.sandboxes, "8m", ["--originals", str(BAD)], f"working sets of {here.TWO}.*: 640m are still to be allocated in .*, 7m are free"),
    ],
    ids=["bundles", "baselines", "working sets"],
)
def test_a_full_disk_leaves_nothing_half_made(full: str, size: str, options: list[str], said: str) -> None:
    # What the command itself did is in the working set, as it should be.
    kept = pathlib.Path(here.AT.delta(here.TWO), "upper", "kept")
    about = kept.parent.stat()
    if options:
        here.tree(BAD)
        for number in range(400):
            (BAD / f"{number:064d}").touch()
    try:
        script = f'mount -t tmpfs -o size={size} none "$0"; code=0; "$@" || code=$?; find "$0" -mindepth 1 ! -name {here.TWO}; exit $code'
        command = [*PRIVATE, script, full, here.SANDBOX, "run", here.TWO, *options, "--", "sh", "-c", "head -c 3000000 /dev/urandom > kept"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert done.stdout == b""
        one_line(done, said)
    finally:
        shutil.rmtree(BAD, ignore_errors=True)
        here.inside(here.TWO, "rm", "-f", "/workspace/kept")
        os.utime(kept.parent, ns=(about.st_atime_ns, about.st_mtime_ns))


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        (here.TWO, "100t", r"^working sets of .*: \d+m are still to be allocated in .*sandboxes, \d+m are free for it: make room, or declare a smaller"),
        (here.TWO, "400m", r"^sandbox e2e-two: working_set: 400m is less than the 512m that it has: it only grows; declare that again"),
    ],
)
def test_a_working_set_that_cannot_be_had_is_named(name: str, size: str, said: str) -> None:
    declared = [{**one, "working_set": size} if one["name"] == name else one for one in here.DECLARED]
    done = here.site(declared=declared)
    assert done.code == 2
    matched(done.lines, {size: said})


# -- the engine


class Old(http.server.BaseHTTPRequestHandler):
    """An engine of 2019, as far as it is asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(
            {
                "ServerVersion": "19.03.15",
                "Version": "19.03.15",
                "ApiVersion": "1.40",
                "LiveRestoreEnabled": True,
                "SecurityOptions": ["name=seccomp,profile=default"],
                "Runtimes": {"runc": {"path": "runc"}},
                "DockerRootDir": "/var/lib/docker",
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_arguments: t.Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def engine(path: pathlib.Path, alive: bool) -> collections.abc.Iterator[tuple[str, ...]]:
    """Yield the prefix of a command that sees the old engine, or a socket that nobody answers, in place of the real one."""
    prefix = (*PRIVATE, 'mount --bind "$0" /run/docker.sock && exec "$@"', str(path))
    if not alive:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
        yield prefix
        return
    with socketserver.ThreadingUnixStreamServer(str(path), Old) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield prefix
        server.shutdown()


def test_an_engine_that_is_too_old_is_named(tmp_path: pathlib.Path) -> None:
    with engine(tmp_path / "sock", alive=True) as prefix:
        done = here.play("site", "--tags", "bootstrap", prefix=prefix)
    assert done.code == 2
    assert done.lines[0] == UNFIT
    matched(done.lines[1:], {"old": r"^- Docker: the engine is 19.03.15; install 20.10 or later"})


def test_an_engine_that_does_not_answer_is_named(tmp_path: pathlib.Path) -> None:
    pattern = r"Docker does not answer on /var/run/docker.sock: .*Connection refused; start it"
    with engine(tmp_path / "sock", alive=False) as prefix:
        command = [*prefix, here.SANDBOX, "run", here.TWO, "--", "true"]
        one_line(subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False), pattern)
        done = here.play("site", "--tags", "env", prefix=prefix)
    assert done.code == 2
    matched(done.lines, {"dead": pattern})


# -- what was tampered with


@contextlib.contextmanager
def tampered(path: str, old: bytes, new: bytes) -> collections.abc.Iterator[None]:
    """Change a file, and put it back with its times."""
    about, content = os.stat(path), pathlib.Path(path).read_bytes()
    assert old in content
    pathlib.Path(path).write_bytes(content.replace(old, new, 1))
    try:
        yield
    finally:
        pathlib.Path(path).write_bytes(content)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def test_what_was_tampered_with_is_named() -> None:
    rules = f"{here.AT.home}/rules/sandbox_rules.md"
    gate = f"{here.AT.home}/.state/seals/env.json"
    manifest = next(pathlib.Path(here.AT.baseline(here.TWO)).glob("*/manifest.jsonl"))
    lock = f"{here.AT.home}/configs/seccomp.json.sha256"
    with tampered(rules, b"\n", b" \n"), tampered(gate, b'"payload":"', b'"payload":"AAAA'), tampered(str(manifest), b"README", b"ReADME"):
        done = here.play("verify")
        assert done.code == 2
        matched(
            done.lines,
            {
                "lock": rf"^(Tampered: )?{rules}.*its lock says",
                "gate of the file": rf"^bootstrap: {rules} changed after it was sealed",
                "gate": rf"^(env: )?{gate}|^env: .*{gate}",
                "baseline": rf"{manifest}|{here.TWO}.*manifest",
            },
        )
    with tampered(gate, b'"payload":"', b'"payload":"AAAA'):
        done = here.play("site", "--tags", "fs")
        assert done.code == 2
        assert len(done.lines) == 1, done.lines
        assert gate in done.lines[0], done.lines
        status = subprocess.run([here.SANDBOX, "status"], capture_output=True, text=True, check=False)
        assert status.returncode == 1
        assert "broken" in status.stdout
    with tampered(lock, b"0", b"1"):
        done = here.play("site", "--tags", "env")
        assert done.code == 2
        assert len(done.lines) == 1, done.lines
        assert "configs/seccomp.json" in done.lines[0]
