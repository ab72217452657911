# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bundle: what was changed comes out, and goes in again. Needs root and git: the overlays and patches are real."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import stat
import subprocess
import tempfile
import typing as t
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import bundle, canonical, changes, seal
from ansible_collections.dockersandbox.guardrails.tests.unit import overlays

SEEDS = int(os.environ.get("SOAK_SEEDS", "8"))
KEY = seal.generate()
FACTS = {"argv": ["make"], "baseline": "0" * 64, "exit_code": 0}


def sign(subjects: dict[str, str], predicate: dict[str, t.Any]) -> dict[str, t.Any]:
    return seal.sign(seal.statement(subjects, bundle.KIND, predicate), KEY)


class Local:
    """The tool without its container: the content is the test's own."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, argv: list[str], stdin: t.Iterable[bytes], stdout: t.BinaryIO) -> int:
        self.calls += 1
        with (
            tempfile.TemporaryDirectory() as folder,
            subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=stdout, env={**os.environ, "TMPDIR": folder}) as process,
        ):
            assert process.stdin is not None
            for chunk in stdin:
                process.stdin.write(chunk)
            process.stdin.close()
            return process.wait()


def no_tool(argv: list[str], stdin: t.Iterable[bytes], stdout: t.BinaryIO) -> int:
    raise AssertionError("a container was started for nothing")


def make(root: Path, act: t.Callable[[Path], None], tool: bundle.Tool | None = None, limit: int = bundle.LIMIT) -> dict[str, t.Any]:
    """Bundle what *act* does to root/lower as root/bundle; what it came to is left in root/expected."""
    with overlays.overlay(root) as mounted:
        act(mounted.merged)
        subprocess.run(["cp", "-a", mounted.merged, root / "expected"], check=False)
    found = changes.read(str(root / "upper"), str(root / "lower"))
    return bundle.write(str(root / "bundle"), found, str(root / "upper"), str(root / "lower"), tool or Local(), FACTS, sign, limit)


def apply(root: Path, run_git: bool = True) -> list[str]:
    subprocess.run(["cp", "-a", root / "lower", root / "applied"], check=True)
    if not run_git and (root / "bundle/changes.patch").stat().st_size:
        # As somebody would who knows nothing of bundles.
        subprocess.run(["git", "apply", root / "bundle/changes.patch"], cwd=root / "applied", check=True)
    return bundle.apply(str(root / "bundle"), str(root / "applied"), KEY.public, run_git)


def shell(script: str) -> t.Callable[[Path], None]:
    def act(root: Path) -> None:
        subprocess.run(["bash", "-euc", script], cwd=root, check=True)

    return act


def fill(root: Path) -> None:
    for name in ("d/deep/er", "empty", "keep"):
        (root / name).mkdir(parents=True)
    for name in ("a", "d/one", "d/two", "d/deep/er/three", "keep/x"):
        (root / name).write_bytes(f"{name}\n".encode() * 20)
    (root / "link").symlink_to("a")
    (root / "blob").write_bytes(bytes(range(256)) * 8)
    (root / "dos").write_bytes(b"one\r\ntwo\r\n")
    (root / "keep/twin1").write_bytes(b"twins\n")
    os.link(root / "keep/twin1", root / "d/twin2")


CASES = {
    "edit": "echo more >> d/one; printf 'x' >> a; echo x >> dos",
    "modes": "chmod 0600 a; chmod 0711 d; chmod 2770 keep; chmod 0000 d/one; chmod 0444 d/deep; chmod +x d/two",
    "owners": "chown 1500:1500 a; chown -h 1500 link; chgrp 1500 d",
    "root": "chmod 0711 .",
    "delete": "rm a link; rm -r d",
    "last file of a folder": "rm d/deep/er/three",
    "all files of nested folders": "chmod 0750 d/deep; rm d/deep/er/three; chown 1500 d/deep/er",
    "replaced folder": "rm -r d; mkdir d; echo new > d/one",
    "folder to file": "rm -r d; echo x > d",
    "folder with an empty one to file": "mkdir -p empty; rm -r empty; rm -r d; echo x > d; echo y > empty",
    "folder to link": "rm -r d; ln -s keep d",
    "file to folder": "rm a; mkdir -p a/in; echo x > a/in/x",
    "link to folder": "rm link; mkdir link; echo x > link/in",
    "link to file": "rm link; echo x > link",
    "file to link": "rm a; ln -s /etc/passwd a",
    "rename": "mv d/one 'keep/other name'; chmod 0600 'keep/other name'; mv blob d/blob; echo x >> d/blob",
    "folder renamed": "mv d e",
    "empty": "mkdir -p n/o/p; : > n/file; : > a",
    "binary": "head -c 5000 /dev/urandom > bin; printf 'x' >> blob; head -c 9 /dev/zero > zero",
    "special": "mkfifo pipe; rm a; mkfifo a",
    "special inside a folder that was a file": "rm a; mkdir a; mkfifo a/pipe; echo x > a/x",
    "git": "mkdir -p .git/hooks sub/.GIT 'git~1'; echo x | tee .git/config .git/hooks/pre-commit sub/.GIT/x 'git~1/x' sub/.git >/dev/null",
    "git's names as links": "ln -s a .gitmodules; ln -s a .gitattributes; ln -s a .git; mkdir x; ln -s y x/GITMOD~1",
    "disguised": "mkdir '.git ' '.git.' '.git::$INDEX_ALLOCATION' $'.g\\xe2\\x80\\x8cit'; for d in .g*/; do echo x > \"$d/config\"; done; echo x > '.git\\x'",
    "attributes": "printf '* text=auto eol=crlf\\n*.u working-tree-encoding=UTF-16\\nd/** -diff filter=no\\n' > .gitattributes;"
    " printf 'a\\nb\\r\\n' | tee x.u d/y d/one z >/dev/null",
    "looks like a patch": "printf -- '--- a/x\\n+++ b/x\\n@@ -1 +1 @@\\n-a\\n+b\\n' | tee p.patch a >/dev/null; printf -- '-- \\n' > q",
    "odd names": "for n in 'a b' 'q\"uote' \"it's\" $'new\\nline' $'tab\\t' $'\\xff\\xfe' -dash 'back\\slash' ' lead' 'trail ' '*' ':(top)x' 'ä'"
    " $'\\x01' $'cr\\r' \"$(printf 'x%.0s' {1..255})\" a/../b/../c; do echo \"$n\" > \"./$n\" || true; done; mv d/one $'d/\\xe9 \"\\n'",
    "odd targets": "ln -s $'\\xff\\n' l1; ln -s none l2; ln -sfn d link; ln -s \"$(printf 'x%.0s' {1..4000})\" l3; ln -s ' ' l4",
    "hard links": "ln a b; echo more >> keep/twin1; ln keep/twin1 third",
    "no end of line": "printf 'x' > a; printf '\\n' > d/one; printf 'x\\n\\n\\n' > d/two",
    "many mode": "chmod -x -R d/*; chmod 4644 empty; chmod 1777 keep",
    "folder to file, mixed": "mkdir m; rm -r d; echo x > d; rm -r keep; ln -s d keep; rm link; mkdir link; mkfifo link/p",
}  # fmt: skip


@pytest.mark.parametrize("run_git", [True, False], ids=["apply", "git apply"])
@pytest.mark.parametrize("script", CASES.values(), ids=CASES.keys())
def test_comes_out_and_goes_in(tmp_path: Path, script: str, run_git: bool) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    before = overlays.picture(tmp_path / "lower")
    tool = Local()
    make(tmp_path, shell(script), tool)
    assert apply(tmp_path, run_git) == []
    assert overlays.picture(tmp_path / "applied") == overlays.picture(tmp_path / "expected")
    assert overlays.picture(tmp_path / "lower") == before
    assert bundle.verify(str(tmp_path / "bundle"), KEY.public) == []
    assert tool.calls <= 1


def without_set_id(root: Path) -> dict[bytes, overlays.Seen]:
    return {path: seen._replace(mode=seen.mode & 0o1777) if stat.S_ISREG(seen.type) else seen for path, seen in overlays.picture(root).items()}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_changes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(f"bundle {seed}")
    (tmp_path / "lower").mkdir()
    overlays.scramble(chance, tmp_path / "lower", 60)
    # What originals may not have: the preflight refuses it.
    subprocess.run(["find", tmp_path / "lower", "(", "-type", "p", "-o", "-type", "s", ")", "-delete"], check=True)
    make(tmp_path, lambda root: overlays.scramble(chance, root, 80))
    assert all("set-id bits" in line for line in apply(tmp_path))
    assert without_set_id(tmp_path / "applied") == without_set_id(tmp_path / "expected")


def records(root: Path) -> dict[bytes, dict[str, t.Any]]:
    lines = (root / "bundle/metadata.jsonl").read_bytes().splitlines()
    return {canonical.path_of(record): record for record in map(json.loads, lines)}


@pytest.mark.parametrize("script", ["true", "touch a", "chmod 0600 a", "mkdir n", "mkfifo p", "mkdir .git; echo x > .git/config"])
def test_no_container_for_what_git_does_not_carry(tmp_path: Path, script: str) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    make(tmp_path, shell(script), no_tool)
    assert (tmp_path / "bundle/changes.patch").read_bytes() == b""
    apply(tmp_path)
    assert overlays.picture(tmp_path / "applied") == overlays.picture(tmp_path / "expected")


def test_bundle_holds_nothing_that_acts(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    make(tmp_path, shell(CASES["git"] + "; chmod 4755 a; ln -s / out; mkdir -p n/o; cp /bin/true n/o/p; " + CASES["odd names"]))
    assert not (tmp_path / "bundle/files/.git").exists()
    for path, seen in overlays.picture(tmp_path / "bundle").items():
        assert (seen.mode, seen.uid) == (0o700 if seen.type == 0o040000 else 0o600, 0), path
        # What acts where it lies, and what no shell or eye takes for what it is, lies there by content alone.
        assert path.decode().isprintable()
        assert b".git" not in path.lower()


def test_rename_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    make(tmp_path, shell("mv d/one d/uno"))
    assert b"rename from d/one\nrename to d/uno\n" in (tmp_path / "bundle/changes.patch").read_bytes()


def test_attributes_come_last_in_the_patch(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    make(tmp_path, shell("echo '* text' > .gitattributes; mkdir z; echo x > z/z; echo '* text' > z/.gitattributes"))
    lines = (tmp_path / "bundle/changes.patch").read_bytes().splitlines()
    names = [line.rpartition(b" b/")[2] for line in lines if line.startswith(b"diff --git")]
    assert names == [b"z/z", b".gitattributes", b"z/.gitattributes"]


def test_socket_and_beyond_the_limit_are_named(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")

    def act(root: Path) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(root / "s"))
        with open(root / "huge", "wb") as file:
            file.truncate(1 << 40)
        (root / "small").write_bytes(b"x" * 1000)
        # A copy of it would fill the disk of the test.
        shutil.move(root / "huge", root / "d/huge")

    with overlays.overlay(tmp_path) as mounted:
        act(mounted.merged)
    found = changes.read(str(tmp_path / "upper"), str(tmp_path / "lower"))
    summary = bundle.write(str(tmp_path / "bundle"), found, str(tmp_path / "upper"), str(tmp_path / "lower"), Local(), FACTS, sign, 1 << 20)
    assert set(summary["not_carried"]) == {"s", "d/huge"}
    assert str(1 << 40) in summary["not_carried"]["d/huge"]
    assert records(tmp_path)[b"s"]["carried"] == "no"
    left = apply(tmp_path)
    assert [line.split(":")[0] for line in left] == ["d/huge", "s"]
    assert (tmp_path / "applied/small").read_bytes() == b"x" * 1000


def test_set_id_bits_of_files_are_told_and_not_given(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    make(tmp_path, shell("chmod 6755 a"))
    assert records(tmp_path)[b"a"]["mode"] == "6755"
    assert "rights" in records(tmp_path)[b"a"]["flag"]
    assert apply(tmp_path) == ["a: its set-id bits are not given: chmod 6755 by hand"]
    assert (tmp_path / "applied/a").stat().st_mode & 0o7777 == 0o755


def test_owner_for_all(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    make(tmp_path, shell("chown -hR 1500:1500 ."))
    shutil.copytree(tmp_path / "lower", tmp_path / "applied", symlinks=True)
    bundle.apply(str(tmp_path / "bundle"), str(tmp_path / "applied"), KEY.public, owner=(1600, 1700))
    assert {(seen.uid, seen.gid) for seen in overlays.picture(tmp_path / "applied").values()} == {(1600, 1700)}


def test_what_git_apply_gets_wrong_goes_by_files(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    local = Local()

    def tool(argv: list[str], stdin: t.Iterable[bytes], stdout: t.BinaryIO) -> int:
        if local.calls:
            return local(argv, stdin, stdout)
        local.calls += 1
        for _chunk in stdin:
            pass
        stdout.write(b"d/one\0not/ours\0")
        return 3

    summary = make(tmp_path, shell("echo x >> d/one; echo y >> a"), tool)
    assert summary["unpatched"] == {"d/one": "git apply does not reproduce it"}
    assert records(tmp_path)[b"d/one"]["carried"] == "files"
    assert b"d/one" not in (tmp_path / "bundle/changes.patch").read_bytes()
    apply(tmp_path)
    assert overlays.picture(tmp_path / "applied") == overlays.picture(tmp_path / "expected")


@pytest.mark.parametrize("code", [124, 137])
def test_what_git_cannot_do_goes_by_files(tmp_path: Path, code: int) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")

    def tool(argv: list[str], stdin: t.Iterable[bytes], stdout: t.BinaryIO) -> int:
        stdout.write(b"half a patch")
        return code

    summary = make(tmp_path, shell("echo x >> d/one; echo y > new"), tool)
    assert {path: reason[:16] for path, reason in summary["unpatched"].items()} == dict.fromkeys(("d/one", "new"), "git was given up")
    assert (tmp_path / "bundle/changes.patch").read_bytes() == b""
    apply(tmp_path)
    assert overlays.picture(tmp_path / "applied") == overlays.picture(tmp_path / "expected")


@pytest.mark.parametrize("room", ["0", str(1 << 50)], ids=["in memory", "on disk"])
@pytest.mark.parametrize("spoil", ["content", "exit"])
def test_script_tells_a_patch_that_does_not_apply(tmp_path: Path, spoil: str, room: str) -> None:
    """The proof in the container must not pass a wrong patch: here its git spoils one of two files in it."""
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin/git"
    if spoil == "exit":
        wrapper.write_text('#!/bin/sh\n[ "$1" = write-tree ] && exit 1\nexec /usr/bin/git "$@"\n')
    else:
        wrapper.write_text('#!/bin/sh\n[ "$1" = diff-tree ] && [ "$3" = -p ] && { /usr/bin/git "$@" | sed s/^+bad/+BAD/; exit; }\nexec /usr/bin/git "$@"\n')
    wrapper.chmod(0o755)
    state = changes.State("file", 0o644, 0, 0, 4)
    files = tmp_path / "files"
    files.mkdir()
    (files / "one").write_bytes(b"bad\n")
    (files / "two").write_bytes(b"gut\n")
    found = [changes.Change(b"one", None, state), changes.Change(b"two", None, state)]
    stream = bundle._Stream(found, {b"one": "1", b"two": "2"}, -1, files)
    done = subprocess.run(
        ["sh", "-c", bundle.script(), "sh", room],
        input=b"".join(stream),
        capture_output=True,
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert (done.returncode, done.stdout) == ((4, b"") if spoil == "exit" else (3, b"one\0"))


@pytest.mark.parametrize(
    ("path", "link", "refused"),
    [
        (b"a", False, False),
        (b".gitignore", False, False),
        (b".gitmodules", False, False),
        (b".gitmodules", True, True),
        (b"x/.GitModules", True, True),
        (b"x/GITMOD~1", True, True),
        (b"gi7eba~1", True, True),
        (b"git", False, False),
        (b".git", False, True),
        (b"x/.git/y", False, True),
        (b"x/.gIt", False, True),
        (b"GIT~1/x", False, True),
        (b"git~2", False, False),
        (b".git ", False, True),
        (b".git...", False, True),
        (b".git. ./x", False, True),
        (b".git::$INDEX_ALLOCATION/x", False, True),
        (b".git:x", False, True),
        (b"x\\.git\\y", False, True),
        (b".g\xe2\x80\x8cit", False, True),
        (b".git\xef\xbb\xbf", False, True),
        (b".git\xff", False, True),
        (b".git\xef\xbf\xbe", False, True),
        (b".gitx\xff", False, False),
        (b"x" * 4001, False, True),
        (b"d /x", False, True),
        (b" d/x ", False, False),
    ],
)
def test_what_git_refuses(tmp_path: Path, path: bytes, link: bool, refused: bool) -> None:
    assert bool(bundle.refused_by_git(path, link)) == refused
    # git itself must never refuse what we give to it, with both of its protections on.
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    config = ["-c", "core.protectNTFS=true", "-c", "core.protectHFS=true"]
    line = (b"120000" if link else b"100644") + b" e69de29bb2d1d6434b8b29ae775ad8c2e48c5391\t" + path + b"\0"
    done = subprocess.run(["git", *config, "update-index", "-z", "--index-info"], input=line, cwd=tmp_path, capture_output=True, check=False)
    accepted = done.returncode == 0 and b"gnoring" not in done.stderr
    assert accepted or refused


@pytest.mark.parametrize(
    ("path", "flagged"),
    [
        (b".git/hooks/pre-commit", True),
        (b"sub/.git/config", True),
        (b".bashrc", True),
        (b"x/.envrc", True),
        (b"Makefile", True),
        (b"sub/GNUmakefile", True),
        (b".vscode/tasks.json", True),
        (b"package.json", True),
        (b"tests/conftest.py", True),
        (b".gitattributes", True),
        (b".github/workflows/ci.yml", True),
        (b"Dockerfile.dev", True),
        (b"pyproject.toml", True),
        (b"src/main.py", False),
        (b"README.md", False),
        (b"makefiles.txt", False),
    ],
)
def test_flags(path: bytes, flagged: bool) -> None:
    assert bool(bundle.flag(path, changes.State("file", 0o644, 0, 0))) == flagged


def spoiled(root: Path, name: str) -> None:
    bundled = root / "bundle"
    file = next((bundled / "files").iterdir())
    match name:
        case "patch" | "metadata" | "manifest":
            with next(bundled.glob(f"{'changes' if name == 'patch' else name}.*")).open("ab") as text:
                text.write(b"\n")
        case "seal":
            envelope = json.loads((bundled / "seal.json").read_bytes())
            envelope["signatures"][0]["sig"] = envelope["signatures"][0]["sig"][::-1]
            (bundled / "seal.json").write_text(json.dumps(envelope))
        case "no seal":
            (bundled / "seal.json").unlink()
        case "file changed":
            file.write_bytes(b"other")
        case "file gone":
            file.unlink()
        case "file is a link":
            file.unlink()
            file.symlink_to("/etc/passwd")
        case "file more":
            (bundled / "files/more").touch()
        case "more":
            (bundled / "more").touch()


@pytest.mark.parametrize(
    "name",
    ["patch", "metadata", "manifest", "seal", "no seal", "file changed", "file gone", "file is a link", "file more", "more"],
)
def test_tampered_bundle_is_named_and_not_applied(tmp_path: Path, name: str) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    make(tmp_path, shell("echo x > new"))
    assert bundle.verify(str(tmp_path / "bundle"), KEY.public) == []
    spoiled(tmp_path, name)
    assert len(bundle.verify(str(tmp_path / "bundle"), KEY.public)) == 1
    with pytest.raises(bundle.BundleError):
        apply(tmp_path)
    assert overlays.picture(tmp_path / "applied") == overlays.picture(tmp_path / "lower")


def test_changed_files_lie_at_their_paths(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    make(tmp_path, shell("mkdir -p src; echo x > src/a.py; echo y > 'with space'; echo z > .envrc; printf q > $'new\\nline'"))
    files = tmp_path / "bundle/files"
    assert (files / "src/a.py").read_bytes() == b"x\n"
    assert (files / "with space").read_bytes() == b"y\n"
    hidden = {canonical.sha256_hex(content) for content in (b"z\n", b"q")}
    assert {path.name for path in (files / ".by-sha256").iterdir()} == hidden
    assert sorted(path.name for path in files.iterdir()) == [".by-sha256", "src", "with space"]


def test_foreign_key(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    make(tmp_path, shell("echo x > new"))
    (problem,) = bundle.verify(str(tmp_path / "bundle"), seal.generate().public)
    assert "key" in problem


def forge(root: Path, path: bytes, target: str = "") -> None:
    """Make a bundle that is sealed as it should be, by somebody who means harm, of one file at *path*."""
    bundled = root / "bundle"
    (bundled / "files/.by-sha256").mkdir(parents=True)
    digest = canonical.sha256_hex(b"evil")
    (bundled / "files/.by-sha256" / digest).write_bytes(b"evil")
    owned = {"mode": "0644", "uid": 0, "gid": 0}
    record = {**canonical.path_fields(path), **owned, "type": "file"}
    lines = [{**record, "carried": "files", "content": f"files/.by-sha256/{digest}"}]
    if target:
        lines.insert(0, {"path": "out", "type": "symlink", "target": target, "carried": "metadata", **owned})
    (bundled / "metadata.jsonl").write_bytes(b"".join(canonical.dumps(line) + b"\n" for line in lines))
    (bundled / "manifest.jsonl").write_bytes(canonical.dumps({**record, "size": 4, "sha256": digest}) + b"\n")
    (bundled / "changes.patch").touch()
    digests = {name: canonical.sha256_hex((bundled / name).read_bytes()) for name in bundle.SUBJECTS}
    (bundled / "seal.json").write_bytes(canonical.dumps(sign(digests, FACTS)))


@pytest.mark.parametrize("path", [b"../x", b"/x", b"a/../../x", b"a//x", b"./x", b"a\0x", b"x/."])
def test_path_out_of_the_folder_is_refused(tmp_path: Path, path: bytes) -> None:
    (tmp_path / "lower").mkdir()
    forge(tmp_path, path)
    with pytest.raises(bundle.BundleError, match="no path below a folder"):
        apply(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["applied", "bundle", "lower"]


@pytest.mark.parametrize("where", ["in the target", "in the bundle"])
def test_no_way_out_through_a_link(tmp_path: Path, where: str) -> None:
    (tmp_path / "lower").mkdir()
    (tmp_path / "outside").mkdir()
    if where == "in the target":
        (tmp_path / "lower/out").symlink_to(tmp_path / "outside")
    forge(tmp_path, b"out/x", str(tmp_path / "outside") if where == "in the bundle" else "")
    with pytest.raises(bundle.BundleError, match="fresh copy"):
        apply(tmp_path)
    assert os.listdir(tmp_path / "outside") == []


@pytest.mark.parametrize("kind", ["missing", "file", "link", "other content"])
def test_target_that_is_no_copy(tmp_path: Path, kind: str) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    make(tmp_path, shell("echo x >> d/one"))
    target = tmp_path / "target"
    if kind == "file":
        target.touch()
    elif kind == "link":
        target.symlink_to("lower")
    elif kind == "other content":
        (target / "d").mkdir(parents=True)
        (target / "d/one").write_text("other\n")
    before = overlays.picture(tmp_path / "lower")
    with pytest.raises(bundle.BundleError, match="copy of the originals"):
        bundle.apply(str(tmp_path / "bundle"), str(target), KEY.public)
    assert overlays.picture(tmp_path / "lower") == before


def test_target_configures_no_git(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    lower.mkdir()
    fill(lower)
    subprocess.run(["git", "init", "-q"], cwd=lower, check=True)
    (lower / ".gitattributes").write_text("* filter=evil text eol=crlf working-tree-encoding=UTF-16\n")
    evil = f"touch {tmp_path}/ran; cat"
    for name in ("filter.evil.clean", "filter.evil.smudge", "core.fsmonitor"):
        subprocess.run(["git", "config", name, evil], cwd=lower, check=True)
    make(tmp_path, shell("echo x >> d/one; echo y > new"))
    apply(tmp_path)
    assert overlays.picture(tmp_path / "applied") == overlays.picture(tmp_path / "expected")
    assert not (tmp_path / "ran").exists()


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    (tmp_path / "exports/.bundle.partial/files").mkdir(parents=True)

    def tool(argv: list[str], stdin: t.Iterable[bytes], stdout: t.BinaryIO) -> int:
        return 128

    with overlays.overlay(tmp_path) as mounted:
        (mounted.merged / "new").write_text("x")
    upper, lower = str(tmp_path / "upper"), str(tmp_path / "lower")
    with pytest.raises(bundle.BundleError, match="128"):
        bundle.write(str(tmp_path / "exports/bundle"), changes.read(upper, lower), upper, lower, tool, FACTS, sign)
    assert os.listdir(tmp_path / "exports") == []
    bundle.write(str(tmp_path / "exports/bundle"), changes.read(upper, lower), upper, lower, Local(), FACTS, sign)
    with pytest.raises(bundle.BundleError, match="is there already"):
        bundle.write(str(tmp_path / "exports/bundle"), changes.read(upper, lower), upper, lower, Local(), FACTS, sign)


@pytest.mark.parametrize("what", ["layer", "originals"])
def test_change_meanwhile_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "lower").mkdir()
    fill(tmp_path / "lower")
    with overlays.overlay(tmp_path) as mounted:
        (mounted.merged / "a").write_text("new\n")
    upper, lower = str(tmp_path / "upper"), str(tmp_path / "lower")
    found = changes.read(upper, lower)
    with (tmp_path / ("upper" if what == "layer" else "lower") / "a").open("a") as file:
        file.write("more")
    with pytest.raises(changes.ChangesError, match="a: changed"):
        bundle.write(str(tmp_path / "bundle"), found, upper, lower, Local(), FACTS, sign)
    assert not list(tmp_path.glob("*bundle*"))
