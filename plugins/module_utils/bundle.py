# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles: what a run changed, in a form that a reviewer can read, ``git apply`` takes, and nothing executes.

A bundle is a folder:

- ``changes.patch``: all that git can carry.
- ``metadata.jsonl``: a line for each changed path (sorted by its bytes) with its final type, mode, uid and gid as seen
  inside; ``type: absent`` for what is gone. ``carried`` tells by what: ``patch``, ``files`` (git refuses the path),
  ``metadata`` (the line is all there is to it) or ``no`` (``reason`` says why). ``content`` names the file's bytes
  below ``files/``. ``flag`` warns of what may execute where it is put.
- ``files/``: the bytes of each new or changed file, at its own path. What some tool would act upon where it lies (a
  ``flag``, or a path that git refuses), and odd or long names, lie below ``files/.by-sha256/`` instead, by content.
- ``manifest.jsonl``: what was carried, in the format of :mod:`manifest`.
- ``seal.json``: binds the three to the run's facts.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import tempfile
import typing as t
from pathlib import Path

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, canonical, changes, manifest, seal
from ansible_collections.dockersandbox.guardrails.plugins.module_utils.changes import Change, ChangesError, State

Tool = t.Callable[[list[str], t.Iterable[bytes], t.BinaryIO], int]
Sign = t.Callable[[dict[str, str], dict[str, t.Any]], dict[str, t.Any]]
Record = dict[str, t.Any]

KIND = "bundle"
PATCH, METADATA, MANIFEST, SEAL, FILES = "changes.patch", "metadata.jsonl", "manifest.jsonl", "seal.json", "files"
SUBJECTS = (PATCH, METADATA, MANIFEST)

# How many bytes of content a bundle carries. What is beyond is named, not carried: a sparse file costs a sandbox
# nothing and would fill the host.
LIMIT = 1 << 30
# A file above this goes by files/ alone: a textual difference of it helps nobody and takes the container's memory, as does
# what is beyond the second of all files together.
PATCH_LIMIT = 1 << 26
PATCHES_LIMIT = 1 << 28
# Exit codes of the container: the patch does not hold for all; out of time, out of memory.
_WRONG, _TOO_MUCH = 3, (124, 137)
GIVEN_UP = (_WRONG, *_TOO_MUCH)
_BLOCK = 1 << 20
_BY_DIGEST = ".by-sha256"
_LONGEST_PLAIN = 1000  # leaves room for the folder of the bundle in PATH_MAX
_LONGEST_FOR_GIT = 4000  # its calls take PATH_MAX (4096), with a temporary suffix
_SECONDS = 900
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# Above every .gitattributes: no conversion of line ends or encodings, no filter, no driver of the user's.
_ATTRIBUTES = "* -text -ident !eol !filter !working-tree-encoding !diff !merge !whitespace"
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_CONFIG = {
    "core.attributesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.fileMode": "true",
    "core.symlinks": "true",
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    # What is larger is compared as binary: the memory for lines grows with their number, which is the sandbox's to choose.
    "core.bigFileThreshold": "4m",
    "diff.renameLimit": "1000",
    "fastimport.unpackLimit": "0",
    "gc.auto": "0",
    "apply.whitespace": "nowarn",
}

# Reads a fast-import stream of two commits, writes the patch between them. Proves first that `git apply` makes the new
# tree of the old: else it exits 3 and writes the paths that came out wrong, each ended by NUL. .gitattributes come last,
# so that those of a repository in which somebody applies the patch do not change while it is being written.
_SCRIPT = r"""
set -eu
umask 022
# In memory where there is room for the $1 KiB it takes: thousands of small files are many times as fast there.
if [ "$(df -k --output=avail /dev/shm | tail -n 1)" -gt "$1" ]; then
  top=$(mktemp -d -p /dev/shm)
else
  top=$(mktemp -d)
fi
trap 'rm -rf "$top"' EXIT
export HOME="$top" XDG_CONFIG_HOME="$top" GIT_CEILING_DIRECTORIES="$top" @ENVIRONMENT@
cd "$top"
git init -q --template= repo
export GIT_DIR="$top/repo/.git" GIT_INDEX_FILE="$top/index"
mkdir "$GIT_DIR/info"
printf '%s\n' '@ATTRIBUTES@' > "$GIT_DIR/info/attributes"
@CONFIG@
git fast-import --quiet --done

difference() {
  git diff-tree -r -p --binary --full-index --no-ext-diff --no-textconv --no-color --src-prefix=a/ --dst-prefix=b/ "$@"
}
patch() {
  difference "$1" old new -- ':/' ':(exclude,glob)**/.gitattributes' > patch
  difference "$1" old new -- ':(glob)**/.gitattributes' >> patch
}
# What fails here must never pass for "the same", and `set -e` does not hold in a condition.
same() {
  rm -rf tree index
  mkdir tree
  git read-tree old && git --work-tree=tree checkout-index -a -q -f || exit 4
  (cd tree && env -u GIT_DIR -u GIT_INDEX_FILE git apply "$@" ../patch) > said 2>&1 || true
  rm -f index
  git --work-tree=tree add -A -f . >> said 2>&1 || true
  made=$(git write-tree) || exit 4
  git diff-tree -r -z --name-only --no-renames "$made" new > wrong || exit 4
  [ ! -s wrong ]
}
patch -M
if ! same; then
  patch --no-renames
  if ! same; then
    same --reject || true
    cat wrong
    exit 3
  fi
fi
cat patch
"""

# What acts on its own where it is put: on checkout, on entering a folder, on a build, on opening an editor.
_FLAGS = (
    (r"/\.git/hooks/", "git runs it"),
    (r"/\.git/(.*/)?(config|config\.worktree|info/attributes)$|/\.git$", "git's configuration can run commands"),
    (r"/\.git/", "git's own data"),
    (r"/\.gitattributes$|/\.gitmodules$|/\.lfsconfig$", "chooses filters, drivers or sources of git"),
    (r"/(\.githooks|\.husky)/|/\.pre-commit-config\.yaml$|/lefthook\.ya?ml$", "holds hooks of git"),
    (r"/\.(bashrc|bash_profile|bash_login|bash_logout|bash_aliases|profile|zshrc|zshenv|zprofile|zlogin|kshrc|inputrc)$",
     "a shell reads it at its start"),
    (r"/\.(envrc|env)$|/\.config/(fish|direnv)/", "is loaded on entering the folder or starting a program"),
    (r"/(\.ssh|\.gnupg|\.aws|\.kube|\.docker)/", "configures access to other machines"),
    (r"/\.(vimrc|exrc|nvimrc|emacs|gdbinit|lldbinit|netrc|npmrc|yarnrc(\.yml)?|pypirc|curlrc|wgetrc|screenrc|tmux\.conf)$|"
     r"/\.dir-locals\.el$", "a tool reads it as its configuration"),
    (r"/\.(vscode|idea|devcontainer|zed|cursor|claude|codex)/|/\.mcp\.json$", "an editor or agent runs tasks from it"),
    (r"/(gnu)?makefile$|\.mk$|/(justfile|rakefile|taskfile\.ya?ml|cmakelists\.txt|meson\.build|build\.xml|sconstruct)$|"
     r"\.gradle(\.kts)?$|/(gradlew|mvnw)(\.bat)?$", "a build runs it"),
    (r"/(package|composer)\.json$|/\.pnpmfile\.cjs$|/\.yarn/", "its scripts run on installation"),
    (r"/(setup\.(py|cfg)|pyproject\.toml|build\.rs|binding\.gyp|extconf\.rb|gemfile|conanfile\.py)$|\.gemspec$",
     "runs on installation or build"),
    (r"/(conftest|sitecustomize|usercustomize|noxfile|tasks|fabfile)\.py$|\.pth$|/(tox|pytest)\.ini$",
     "Python or its tools run it unasked"),
    (r"/\.(github|gitlab|circleci|buildkite|woodpecker)/|/(\.gitlab-ci|\.travis|azure-pipelines|bitbucket-pipelines)\.ya?ml$|"
     r"/jenkinsfile$|/\.ci/", "continuous integration runs it"),
    (r"/(docker|container)file([.-][^/]*)?$|/(docker-)?compose[^/]*\.ya?ml$|/vagrantfile$", "builds or starts machines"),
    (r"/(ansible\.cfg|\.ansible/.*)$|\.desktop$|/autorun\.inf$|/desktop\.ini$|/cron[^/]*/|\.(service|timer|socket)$",
     "the system or a tool acts on it"),
)  # fmt: skip
_FLAG = [(re.compile(pattern.encode(), re.DOTALL), reason) for pattern, reason in _FLAGS]

# What Apple's file system ignores in names, as git's utf8.c tells: a name with such a character in it is that without.
_IGNORED = dict.fromkeys((*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF))


class BundleError(Exception):
    """A bundle cannot be made or applied; the text is one line for the operator."""


# --- what goes where


def refused_by_git(path: bytes, link: bool) -> str:
    """Return why git does not carry *path* (a symlink if *link*) on some system or in some version; "" when it does.

    Wider than git's own verify_path on purpose: what is named here is carried outside the patch, which is never wrong.
    """
    if len(path) > _LONGEST_FOR_GIT:
        return "longer than git takes"
    if b" /" in path:
        # Where there is no content, some versions tell the name by the spaces in the first line, and give up here.
        return "git apply cannot read back the name of a folder that ends with a space"
    for part in re.split(rb"[/\\]", path):
        # At what is no UTF-8 or no character, git's reader of Apple's names stops as if the name ended there.
        text = re.split("[\ufffd-\uffff]", part.decode("utf-8", "replace"))[0].translate(_IGNORED)
        name = text.lower().partition(":")[0].rstrip(" .")
        if name in (".git", "git~1"):
            return "git takes it for its own folder"
        if link and name.startswith((".gitmodules", "gitmod~", "gi7eb")):
            return "git refuses it as a link"
    return ""


def flag(path: bytes, new: State) -> str:
    """Return why *path* may execute something on the host of whoever puts it there; "" when nothing is known."""
    if new.type == "file" and new.mode & 0o6000:
        return "runs with its owner's or group's rights"
    if new.type not in ("file", "symlink"):
        return ""
    shown = b"/" + path.lower()
    reason = next((reason for pattern, reason in _FLAG if pattern.search(shown)), "")
    if not reason and new.target is not None and (new.target.startswith(b"/") or b".." in new.target.split(b"/")):
        return "a link that may lead out of the tree"
    return reason


def _git_mode(state: State | None) -> bytes:
    """Return the mode that git gives an entry, empty for what is none to it."""
    if state is None or state.type not in ("file", "symlink"):
        return b""
    if state.type == "symlink":
        return b"120000"
    return b"100755" if state.mode & 0o100 else b"100644"


class _Plan:
    """Which change is carried by what."""

    def __init__(self, found: list[Change], limit: int) -> None:
        self.found = found
        self.by_path = {change.path: change for change in found}
        self.paths = sorted(self.by_path)
        self.dropped: dict[bytes, str] = {}  # path → why its content is not carried at all
        self.reasons: dict[bytes, str] = {}  # path → why it is not in the patch
        self._limit = limit
        self._choose_content()
        self._choose_git()

    def _choose_content(self) -> None:
        room = self._limit
        for change in self.found:
            new = change.new
            if new is None or new.type in ("dir", "fifo", "symlink"):
                continue
            if new.type != "file":
                self.dropped[change.path] = f"a {new.type}"
            elif change.content:
                if new.size > room:
                    self.dropped[change.path] = f"{new.size} bytes, more than is left of the limit of {self._limit}"
                else:
                    room -= new.size

    def _choose_git(self) -> None:
        room = min(2 * self._limit, PATCHES_LIMIT)
        for change in self.found:
            old, new = change.old, change.new
            if _git_mode(old) == _git_mode(new) and not (change.content and _git_mode(new)):
                continue
            states = [state for state in (old, new) if state is not None]
            reason = refused_by_git(change.path, any(state.type == "symlink" for state in states))
            size = sum(state.size for state in states)
            if not reason and old is not None and old.type not in ("file", "symlink", "dir"):
                reason = f"was a {old.type}"
            if not reason and any(state.size > PATCH_LIMIT for state in states):
                reason = f"larger than {PATCH_LIMIT} bytes"
            if not reason and size > room:
                reason = "the patch is full"
            if reason:
                self.reasons[change.path] = reason
            else:
                room -= size
        self._settle()

    def ban(self, paths: t.Iterable[bytes], reason: str) -> None:
        """Take *paths* out of the patch, for the *reason*."""
        self.reasons.update(dict.fromkeys(paths, reason))
        self._settle()

    def _settle(self) -> None:
        """Take out of the patch what git could not put in place, because something is in the way that it cannot remove."""
        for change in self.found:
            if _git_mode(change.new) and not _git_mode(change.old) and self._blocked_above(change.path):
                self.reasons.setdefault(change.path, "git cannot clear its place")
        for change in self.found:
            was_folder = change.old is not None and change.old.type == "dir"
            if was_folder and _git_mode(change.new) and not self._clears(change.path):
                self.reasons.setdefault(change.path, "git cannot clear its place")

    def _blocked_above(self, path: bytes) -> bool:
        while path := path.rpartition(b"/")[0]:
            above = self.by_path.get(path)
            if above is not None and above.old is not None and above.old.type != "dir" and not self.in_patch(above):
                return True
        return False

    def _clears(self, folder: bytes) -> bool:
        """Whether the patch removes all that was in *folder*: git then removes the folders, but no others."""
        start = bisect.bisect_left(self.paths, folder + b"/")
        inner, kept = set(), {folder}
        for path in self.paths[start:]:
            if not path.startswith(folder + b"/"):
                break
            change = self.by_path[path]
            if change.old is None:
                continue
            if change.old.type == "dir":
                kept.add(path)
            elif not self.in_patch(change):
                return False
            else:
                inner.add(path)
        for path in inner:
            while (path := path.rpartition(b"/")[0]) in kept:
                kept.discard(path)
        return not kept

    def in_patch(self, change: Change) -> bool:
        """Whether the patch carries *change*, its old side at least."""
        if change.path in self.reasons:
            return False
        if change.new is not None and change.path in self.dropped and change.new.type == "file":
            return False
        old, new = _git_mode(change.old), _git_mode(change.new)
        return old != new or (change.content and bool(new))

    def carried(self, change: Change) -> str:
        """Return what carries *change*."""
        if change.path in self.dropped:
            return "no"
        if self.in_patch(change):
            return "patch"
        return "files" if change.new is not None and change.new.type == "file" and change.content else "metadata"


# --- making


def write(
    out: str,
    found: t.Iterable[Change],
    upper: str,
    lower: str,
    tool: Tool,
    facts: dict[str, t.Any],
    sign: Sign,
    limit: int = LIMIT,
) -> dict[str, t.Any]:
    """Make the bundle *out* of the changes *found* in the layer *upper* over *lower*; it is there whole or not at all.

    *tool* runs an argv in a container that has git and sh and nothing of the host, feeds it the chunks, writes its
    output to the file and returns its exit code (after one of GIVEN_UP it is tried with less). *facts* (canonical JSON) and the sha256 of the three files go to
    *sign*, which returns the envelope. At most *limit* bytes of content are carried.

    Returns how many entries, files and bytes there are, and by printable path: ``flagged``, ``unpatched`` (not in the
    patch, with the reason) and ``not_carried`` (with the reason). Raises BundleError, and ChangesError when the working
    set changes meanwhile; then nothing is left behind.
    """
    final = Path(out)
    if final.exists():
        raise BundleError(f"{out}: is there already: a bundle is never written over")
    staging = final.with_name(f".{final.name}.partial")
    try:
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir(mode=0o700)
        (staging / FILES).mkdir(mode=0o700)
        summary = _fill(staging, _Plan(list(found), limit), upper, lower, tool, facts, sign)
        _sync_all(staging)
        staging.rename(final)
        atomic.sync_folder(final.parent)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, OSError):
            raise BundleError(f"{out}: cannot be written: {atomic.reason(error)}") from error
        raise
    return summary


def _fill(staging: Path, plan: _Plan, upper: str, lower: str, tool: Tool, facts: dict[str, t.Any], sign: Sign) -> dict[str, t.Any]:
    with contextlib.ExitStack() as stack:

        def opened(folder: str) -> int:
            fd = os.open(folder, _FOLDER)
            stack.callback(os.close, fd)
            return fd

        above, below = opened(upper), opened(lower)
        index = opened(changes.index_folder(upper)) if any(change.index for change in plan.found) else -1
        digests = _copy_files(plan, above, index, staging / FILES)
        _make_patch(plan, digests, below, staging, tool)
        records = _records(plan, digests, above)
    carried = [_entry(change.path, change.new, digests.get(change.path)) for change in plan.found if change.new is not None and change.path not in plan.dropped]
    _put(staging / METADATA, b"".join(canonical.dumps(record) + b"\n" for record in records))
    _put(staging / MANIFEST, b"".join(manifest.line(entry) + b"\n" for entry in carried))
    envelope = sign({name: _digest_of(staging / name)[0] for name in SUBJECTS}, facts)
    _put(staging / SEAL, canonical.dumps(envelope) + b"\n")
    shown = {path: manifest.shown(path) for path in plan.paths}
    return {
        "entries": len(plan.found),
        "files": len(digests),
        "bytes": sum(entry.size or 0 for entry in carried),
        "patch_bytes": (staging / PATCH).stat().st_size,
        "flagged": {manifest.shown(canonical.path_of(record)): record["flag"] for record in records if "flag" in record},
        "unpatched": {shown[path]: plan.reasons[path] for path in plan.paths if path in plan.reasons},
        "not_carried": {shown[path]: plan.dropped[path] for path in plan.paths if path in plan.dropped},
    }


def _put(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, _NEW, 0o600), "wb") as file:
        file.write(content)


def _sync_all(folder: Path) -> None:
    """Make everything below *folder* durable by one call: thousands of files would each wait for the disk."""
    fd = os.open(folder, _FOLDER)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


def _digest_of(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _entry(path: bytes, new: State, digest: str | None) -> manifest.Entry:
    size = new.size if new.type == "file" else None
    return manifest.Entry(path, new.type, new.mode, new.uid, new.gid, size, new.target, digest)


def _copy_files(plan: _Plan, upper: int, index: int, files: Path) -> dict[bytes, str]:
    """Put each changed file's bytes into *files* by their sha256; return by path the sha256 of every carried file."""
    digests = {}
    for change in plan.found:
        new = change.new
        if new is None or new.type != "file" or change.path in plan.dropped:
            continue
        source = changes.open_file(index, os.fsencode(change.index)) if change.index else changes.open_file(upper, change.path)
        with os.fdopen(source, "rb", buffering=0) as file:
            digests[change.path] = _copy(file, change, new, files)
    return digests


def _copy(source: t.BinaryIO, change: Change, new: State, files: Path) -> str:
    digest, copied = hashlib.sha256(), 0
    spare = files / "spare"
    with open(os.open(spare, _NEW, 0o600) if change.content else os.devnull, "wb", buffering=0) as target:
        while block := source.read(_BLOCK):
            copied += len(block)
            if copied > new.size:
                break
            digest.update(block)
            target.write(block)
    if copied != new.size:
        raise ChangesError(f"{manifest.shown(change.path)}: changed while it was read: pause the sandbox first")
    if change.content:
        place = files / _place(change.path, new, digest.hexdigest())
        for folder in atomic.missing_folders(place):
            folder.mkdir(mode=0o700)
        spare.rename(place)
    return digest.hexdigest()


def _place(path: bytes, new: State, digest: str) -> str:
    """Return where below ``files/`` the bytes of *path* lie."""
    plain = len(path) <= _LONGEST_PLAIN and canonical.printable(path).encode() == path and b"\\" not in path
    if not plain or path.startswith((b"spare", _BY_DIGEST.encode())) or flag(path, new) or refused_by_git(path, False):
        return f"{_BY_DIGEST}/{digest}"
    return path.decode()


def _records(plan: _Plan, digests: dict[bytes, str], upper: int) -> list[Record]:
    records = {}
    for change in plan.found:
        records[change.path] = _record(plan, change, digests.get(change.path))
        if _git_mode(change.old) and _git_mode(change.new)[:3] != _git_mode(change.old)[:3]:
            # git removes the folders that it empties, also those that are still there in the working set.
            path = change.path
            while (path := path.rpartition(b"/")[0]) and path not in plan.by_path and path not in records:
                folder = changes.open_folder(upper, path)
                try:
                    kept = changes.state(".", folder)
                finally:
                    os.close(folder)
                if kept is not None:
                    records[path] = {**canonical.path_fields(path), **_described(kept), "carried": "metadata"}
    return [records[path] for path in sorted(records)]


def _described(state: State) -> Record:
    return {"type": state.type, "mode": f"{state.mode:04o}", "uid": state.uid, "gid": state.gid}


def _record(plan: _Plan, change: Change, digest: str | None) -> Record:
    record: Record = {**canonical.path_fields(change.path), "type": "absent", "carried": plan.carried(change)}
    if reason := plan.dropped.get(change.path) or plan.reasons.get(change.path):
        record["reason"] = reason
    if change.new is None:
        return record
    record |= _described(change.new)
    if change.new.target is not None:
        record |= canonical.path_fields(change.new.target, "target")
    if digest is not None and change.content:
        record["content"] = f"{FILES}/{_place(change.path, change.new, digest)}"
    if warning := flag(change.path, change.new):
        record["flag"] = warning
    return record


# --- the patch


def _make_patch(plan: _Plan, digests: dict[bytes, str], lower: int, staging: Path, tool: Tool) -> None:
    """Write the patch, and take out of the plan what turns out not to survive ``git apply``."""
    path = staging / PATCH
    while True:
        wanted = [change for change in plan.found if plan.in_patch(change)]
        if not wanted:
            path.unlink(missing_ok=True)
            _put(path, b"")
            return
        stream = _Stream(wanted, digests, lower, staging / FILES)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            try:
                code = tool(["timeout", str(_SECONDS), "sh", "-c", script(), "sh", str(_room(wanted))], stream, file)
            finally:
                if stream.error:
                    raise stream.error
        if code == 0:
            return
        known = {change.path for change in wanted}
        if code in _TOO_MUCH:
            # Nobody can have his work bundled as nothing by making it hard on git: everything goes by files/.
            plan.ban(known, "git was given up with all of the patch: it took too long or too much memory")
        elif code == _WRONG:
            wrong = known.intersection(path.read_bytes().split(b"\0"))
            # Should the paths be none of ours, no smaller patch is known to be right.
            plan.ban(wrong or known, "git apply does not reproduce it")
        else:
            raise BundleError(f"the container that makes the patch failed with exit code {code}")


def _room(wanted: list[Change]) -> int:
    """Return how many KiB the container takes at most: pages of both trees, their objects, the patch in base 85."""
    sizes = [state.size for change in wanted for state in (change.old, change.new) if state is not None]
    return (len(sizes) * 8192 + sum(sizes) * 5 // 2 >> 10) + 1024


def script() -> str:
    """Return the program that the tool container's shell is given."""
    return (
        _SCRIPT.replace("@ENVIRONMENT@", " ".join(f"{name}={value}" for name, value in _ENVIRONMENT.items()))
        .replace("@ATTRIBUTES@", _ATTRIBUTES)
        .replace("@CONFIG@", "\n".join(f"git config {name} {value}" for name, value in _CONFIG.items()))
    )


class _Stream:
    """A fast-import stream of two commits. An error while reading ends it without ``done`` and is kept in *error*.

    It may not be raised: whoever feeds the container does so beside the reading of its output.
    """

    def __init__(self, wanted: list[Change], digests: dict[bytes, str], lower: int, files: Path) -> None:
        self._wanted, self._digests, self._lower, self._files = wanted, digests, lower, files
        self.error: Exception | None = None

    def __iter__(self) -> t.Iterator[bytes]:
        # Each chunk costs a trip through the engine: many small files go in one.
        block = bytearray()
        try:
            for chunk in self._chunks():
                block += chunk
                if len(block) >= _BLOCK:
                    yield bytes(block)
                    block.clear()
        except (OSError, ChangesError) as error:
            self.error = error
            return
        yield bytes(block)

    def _chunks(self) -> t.Iterator[bytes]:
        yield _commit(b"old")
        for change in self._wanted:
            if change.old is not None and _git_mode(change.old):
                yield from self._entry(change, change.old, False)
        yield _commit(b"new") + b"from refs/heads/old\n"
        for change in self._wanted:
            if _git_mode(change.old):
                yield b"D " + _quoted(change.path) + b"\n"
        for change in self._wanted:
            if change.new is not None and _git_mode(change.new):
                yield from self._entry(change, change.new, True)
        yield b"done\n"

    def _entry(self, change: Change, state: State, new: bool) -> t.Iterator[bytes]:
        yield b"M %b inline %b\n" % (_git_mode(state), _quoted(change.path))
        if state.target is not None:
            yield b"data %d\n%b\n" % (len(state.target), state.target)
            return
        yield b"data %d\n" % state.size
        # Where the bytes are the same, the layer's were not copied: the originals' do.
        if new and change.content:
            place = self._files / _place(change.path, state, self._digests[change.path])
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        else:
            fd = changes.open_file(self._lower, change.path)
        left = state.size
        with os.fdopen(fd, "rb", buffering=0) as file:
            while left and (block := file.read(min(left, _BLOCK))):
                left -= len(block)
                yield block
            if left or file.read(1):
                raise ChangesError(f"{manifest.shown(change.path)}: changed in the originals while it was read")
        yield b"\n"


def _commit(name: bytes) -> bytes:
    return b"commit refs/heads/%b\ncommitter - <-> 0 +0000\ndata 0\n" % name


def _quoted(path: bytes) -> bytes:
    plain = b"".join(b"%c" % byte if 0x20 <= byte < 0x7F and byte not in b'"\\' else b"\\%03o" % byte for byte in path)
    return b'"' + plain + b'"'


# --- checking


def verify(folder: str, public: seal.PublicKey, chain: t.Iterable[seal.Envelope] = ()) -> list[str]:
    """Return what is wrong with the bundle *folder*, one line each; the empty list when seal and content hold.

    *chain* holds the rotations that tie older keys to *public* (:func:`seal.rotations`).
    """
    root = Path(folder)
    try:
        statement = seal.verify(seal.read(root / SEAL), public, chain)
    except seal.SealError as error:
        return [f"{root / SEAL}: {error}".replace(f"{root / SEAL}: {root / SEAL}: ", f"{root / SEAL}: ")]
    if statement["predicateType"] != seal.predicate_type(KIND) or seal.subjects(statement).keys() != set(SUBJECTS):
        return [f"{root / SEAL}: is not the seal of a bundle"]
    try:
        problems = [
            f"{root / name}: changed after it was sealed"
            for name, sealed in seal.subjects(statement).items()
            if not _regular(root / name) or _digest_of(root / name)[0] != sealed
        ]
        if problems:
            return problems
        records, entries = _read(root)
        problems = [f"{root / METADATA}: {manifest.shown(path)!r} is no path below a folder" for path in (*records, *entries) if not _inside(path)]
        problems += _content_problems(root, records, entries)
        problems += [
            f"{canonical.printable(os.fsencode(root / name))}: does not belong to the bundle"
            for name in sorted(set(os.listdir(root)) - {*SUBJECTS, SEAL, FILES})
        ]
    except (OSError, ValueError, KeyError, manifest.ManifestError) as error:
        return [f"{root}: cannot be read: {error}"]
    return problems


def _content_problems(root: Path, records: dict[bytes, Record], entries: dict[bytes, manifest.Entry]) -> list[str]:
    """Return what is wrong below ``files/``: each content there is, and nothing else, and it has its sha256."""
    wanted = {root / record["content"]: entries[path].sha256 for path, record in records.items() if "content" in record}
    found: set[Path] = set()
    for parent, folders, names in os.walk(root / FILES):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        found.update(Path(parent, name) for name in (*names, *links))
    problems = []
    for file in sorted(wanted.keys() | found):
        shown = canonical.printable(os.fsencode(file))
        if file not in wanted:
            problems.append(f"{shown}: does not belong to the bundle")
        elif file not in found or not _regular(file):
            problems.append(f"{shown}: is missing")
        elif _digest_of(file)[0] != wanted[file]:
            problems.append(f"{shown}: changed after it was sealed")
    return problems


def _regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _inside(path: bytes) -> bool:
    return not path or not any(part in (b"", b".", b"..") or b"\0" in part for part in path.split(b"/"))


def _read(root: Path) -> tuple[dict[bytes, Record], dict[bytes, manifest.Entry]]:
    lines = (root / METADATA).read_bytes().split(b"\n")[:-1]
    records = {canonical.path_of(record): record for record in map(json.loads, lines)}
    return records, manifest.Manifest.from_bytes((root / MANIFEST).read_bytes()).entries


# --- applying


def apply(
    folder: str,
    target: str,
    public: seal.PublicKey,
    run_git: bool = True,
    owner: tuple[int, int] | None = None,
    chain: t.Iterable[seal.Envelope] = (),
) -> list[str]:
    """Make *target*, a fresh copy of the bundle's originals, what the working set was; the bundle is verified first.

    With *run_git* false the patch was applied already, by plain ``git apply``. Ownership is what the bundle tells, or
    *owner* for everything, and left alone without root. Set-id bits of files are not given: with them a sandbox could
    plant a program that runs with its owner's rights. Returns what was not carried or given, one line each. Raises
    BundleError before anything is changed when the bundle or the target is not as it must be.
    """
    if problems := verify(folder, public, chain):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise BundleError(f"{problems[0]}{more}")
    source = Path(folder)
    records, entries = _read(source)
    try:
        root = os.open(target, _FOLDER)
    except OSError as error:
        raise BundleError(f"{target}: {atomic.reason(error)}: give the folder that holds a copy of the originals") from None
    try:
        if run_git and (source / PATCH).stat().st_size:
            _git_apply(source / PATCH, target)
        return _Applier(source, root, entries, owner).run(records)
    except OSError as error:
        raise BundleError(f"{target}: {error}: is it a fresh copy of the originals?") from error
    finally:
        os.close(root)


def _git_apply(patch: Path, target: str) -> None:
    """Apply the patch with a repository of our own, so that nothing in *target* configures git."""
    with tempfile.TemporaryDirectory() as spare:
        environment = {
            **_ENVIRONMENT,
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": spare,
            "XDG_CONFIG_HOME": spare,
            "GIT_DIR": f"{spare}/.git",
        }

        def git(*argv: str, folder: str = spare) -> None:
            done = subprocess.run(["git", *argv], cwd=folder, env=environment, capture_output=True, check=False)
            if done.returncode:
                said = done.stderr.decode("utf-8", "backslashreplace").strip().splitlines() or ["no reason given"]
                raise BundleError(f"{target}: git {argv[0]}: {said[0]}: is it a fresh copy of the originals?")

        try:
            git("init", "--quiet", "--template=")
        except FileNotFoundError:
            raise BundleError("git is not installed: install it, then apply the bundle again") from None
        for name, value in _CONFIG.items():
            git("config", name, value)
        info = Path(spare, ".git", "info")
        info.mkdir()
        (info / "attributes").write_text(_ATTRIBUTES + "\n", encoding="ascii")
        environment["GIT_WORK_TREE"] = str(Path(target).resolve())
        git("apply", str(patch.resolve()), folder=target)


class _Applier:
    """Brings a tree to what the records tell, every step by descriptors below *root*."""

    def __init__(self, source: Path, root: int, entries: dict[bytes, manifest.Entry], owner: tuple[int, int] | None) -> None:
        self.source, self.root, self.entries, self.owner = source, root, entries, owner
        self.left: list[str] = []

    def run(self, records: dict[bytes, Record]) -> list[str]:
        """Apply *records*; return what was left out."""
        absent = [path for path, record in records.items() if record["type"] == "absent"]
        for path in sorted(absent, reverse=True):
            with self._parent(path) as (folder, name):
                if folder >= 0:
                    self._clear(folder, name)
        present = [(path, record) for path, record in sorted(records.items()) if record["type"] != "absent"]
        for path, record in present:
            if record["carried"] == "no":
                self.left.append(f"{manifest.shown(path)}: not carried: {record['reason']}")
            elif path:
                with self._parent(path) as (folder, name):
                    self._place(folder, name, path, record)
        # The folders last and from the bottom up: they may forbid to write in them.
        for path, record in reversed(present):
            if record["carried"] != "no" and record["type"] == "dir":
                with self._parent(path) as (folder, name):
                    self._dress(folder, name or b".", path, record)
        return self.left

    @contextlib.contextmanager
    def _parent(self, path: bytes) -> t.Iterator[tuple[int, bytes]]:
        above, _slash, name = path.rpartition(b"/")
        try:
            folder = changes.open_folder(self.root, above)
        except OSError as error:
            # A parent that is gone, or is no folder any more, took its content with it.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            yield -1, name
            return
        try:
            yield folder, name
        finally:
            os.close(folder)

    def _kind(self, folder: int, name: bytes) -> str:
        found = changes.state(os.fsdecode(name), folder)
        return found.type if found else "absent"

    def _clear(self, folder: int, name: bytes) -> None:
        kind = self._kind(folder, name)
        if kind == "dir":
            os.rmdir(name, dir_fd=folder)
        elif kind != "absent":
            os.unlink(name, dir_fd=folder)

    def _place(self, folder: int, name: bytes, path: bytes, record: Record) -> None:
        if folder < 0:
            raise BundleError(f"{manifest.shown(path)}: its folder is missing: is it a fresh copy of the originals?")
        kind = record["type"]
        if kind == "file":
            self._place_file(folder, name, path, record)
        elif kind == "symlink":
            target = canonical.path_of(record, "target")
            if self._kind(folder, name) != kind or os.fsencode(os.readlink(name, dir_fd=folder)) != target:
                self._clear(folder, name)
                os.symlink(target, name, dir_fd=folder)
        elif self._kind(folder, name) != kind:
            self._clear(folder, name)
            if kind == "dir":
                os.mkdir(name, 0o700, dir_fd=folder)
            else:
                os.mkfifo(name, 0o600, dir_fd=folder)
        if kind != "dir":
            self._dress(folder, name, path, record)

    def _place_file(self, folder: int, name: bytes, path: bytes, record: Record) -> None:
        digest = self.entries[path].sha256
        if record["carried"] != "files":
            kind = self._kind(folder, name)
            if kind == "file":
                with os.fdopen(changes.open_file(folder, name), "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                        return
            raise BundleError(f"{manifest.shown(path)}: is not what the bundle tells: is it a fresh copy of the originals?")
        spare = f".guardrails-{secrets.token_hex(8)}"
        with (
            open(self.source / record["content"], "rb") as source,
            os.fdopen(os.open(spare, _NEW, 0o600, dir_fd=folder), "wb") as target,
        ):
            shutil.copyfileobj(source, target, _BLOCK)
        if self._kind(folder, name) == "dir":
            os.rmdir(name, dir_fd=folder)
        os.rename(spare, name, src_dir_fd=folder, dst_dir_fd=folder)

    def _dress(self, folder: int, name: bytes, path: bytes, record: Record) -> None:
        """Give the entry its owner, then its mode: a change of owner clears the set-id bits."""
        if os.geteuid() == 0:
            uid, gid = self.owner or (record["uid"], record["gid"])
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        if record["type"] == "symlink":
            return
        mode = int(record["mode"], 8)
        if record["type"] == "file" and mode & 0o6000:
            mode &= 0o1777
            self.left.append(f"{manifest.shown(path)}: its set-id bits are not given: chmod {record['mode']} by hand")
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise BundleError(f"{manifest.shown(path)}: turned into a link while the bundle was applied")
            os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)
