# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a sandbox changed, read from the upper layer of its overlay without mounting it.

The layer was filled by an untrusted process: no name is trusted, no link is followed, every step goes through a folder
descriptor, and nothing recurses. Source: the kernel's Documentation/filesystems/overlayfs.rst, name_to_handle_at(2).
"""

from __future__ import annotations

import collections
import ctypes
import dataclasses
import os
import stat
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import canonical

# Nothing that a bundle is for has longer paths, and a chain of folders costs the square of its depth to list.
LONGEST_PATH = 32768
DEEPEST = 500
# The changes are held in memory, about 1 KiB each: a sandbox must not fill that of the host. A longer path counts for more.
MOST_CHANGES = 500_000

_COUNTED_ONCE = 256  # bytes of a path
_BLOCK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: should a name turn into a FIFO between two calls, opening it must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_HANDLE_BYTES = 128  # MAX_HANDLE_SZ
_INDEX_HEADER = 21  # version, magic, length, flags, type of the handle, 16 bytes of the file system's uuid

_libc = ctypes.CDLL(None, use_errno=True)


class ChangesError(Exception):
    """The changes cannot be read; the text is one line for the operator."""


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """One entry as seen inside the sandbox.

    *type* is file, dir, symlink, fifo, socket, char or block; *mode* the permission bits (07777); *size* in bytes, 0
    for all but files; *target* a symlink's.
    """

    type: str
    mode: int
    uid: int
    gid: int
    size: int = 0
    target: bytes | None = None
    rdev: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One path that is not as it was; *old* is None for a new one, *new* for one that is gone.

    *path* is relative, empty for the root itself. *content* is false when mode or ownership alone differ. *index* names
    the entry of the overlay's index that holds the new state where the layer has none at this path: a second name of a
    hard-linked original that was changed through its first.
    """

    path: bytes
    old: State | None
    new: State | None
    content: bool = True
    index: str = ""

    @property
    def word(self) -> str:
        """What happened to the path: added, changed or removed."""
        return "added" if self.old is None else "removed" if self.new is None else "changed"


def counts(found: t.Iterable[Change]) -> dict[str, int]:
    """Return how many paths were added, changed and removed."""
    return {"added": 0, "changed": 0, "removed": 0} | collections.Counter(change.word for change in found)


def index_folder(upper: str) -> str:
    """Return the overlay's index of the layer *upper*, whose work folder lies beside it as ``work``."""
    return os.path.join(os.path.dirname(os.path.abspath(upper)), "work", "index")


def read(upper: str, lower: str) -> list[Change]:
    """Return what differs between the originals *lower* and the overlay of the layer *upper* over them, by path.

    *lower* shows owners as the sandbox sees them: it is the idmapped mount where there is one. A copied-up entry that
    is the same in type, mode, owner, target and bytes is no change. Raises ChangesError when the layer moves while it
    is read, was made with other mount options than ours, or has a path of more than LONGEST_PATH bytes or more than
    MOST_CHANGES entries, of which one whose path is long counts for several.
    """
    found: list[Change] = []
    hidden: set[bytes] = set()
    try:
        with Cursor(upper) as up, Cursor(lower) as low:
            old, new = state(".", low.fd), state(".", up.fd)
            if old != new:
                found.append(Change(b"", old, new, content=False))
            _merge(up, low, found, hidden)
            _second_names(upper, low, found, hidden)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ChangesError(f"{upper}: changed while it was read ({error.strerror}): pause the sandbox first") from error
    except OSError as error:
        raise ChangesError(f"{upper}: cannot be read: {error}") from error
    found.sort(key=lambda change: change.path)
    return found


def usage(top: str) -> tuple[int, int]:
    """Return the bytes that everything below *top* takes on its disk, and how many entries it is.

    What is moved while it is looked at may be missed: a look soon afterwards finds it. Raises ChangesError for folders
    more than DEEPEST deep, each of which costs a descriptor.
    """
    taken = entries = 0
    seen = set()
    # Descriptors and not paths: whatever is done to the tree meanwhile, nothing leads out of it.
    todo = [os.open(top, _FOLDER)]
    try:
        open_folders = [iter(os.listdir(todo[0]))]
        while open_folders:
            name = next(open_folders[-1], None)
            if name is None:
                open_folders.pop()
                os.close(todo.pop())
                continue
            try:
                info = os.stat(name, dir_fd=todo[-1], follow_symlinks=False)
                inside = os.open(name, _FOLDER, dir_fd=todo[-1]) if stat.S_ISDIR(info.st_mode) else None
            except OSError:
                continue
            entries += 1
            if info.st_ino not in seen:
                taken += info.st_blocks * 512
            if inside is None:
                # A file of several names is one file.
                seen |= {info.st_ino} if info.st_nlink > 1 else set()
            else:
                todo.append(inside)
                open_folders.append(iter(os.listdir(inside)))
                if len(todo) > DEEPEST:
                    raise ChangesError(f"{top}: has folders more than {DEEPEST} deep")
    finally:
        for fd in todo:
            os.close(fd)
    return taken, entries


class Cursor:
    """A place in a tree, moved one name at a time: two descriptors at most, however deep and however long the path."""

    def __init__(self, root: str) -> None:
        """Stand at *root*, which must be a folder and no link."""
        self.fd = os.open(root, _FOLDER)
        self._trail = [self._here()]

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.fd)

    def _here(self) -> tuple[int, int]:
        info = os.fstat(self.fd)
        return info.st_dev, info.st_ino

    def _move(self, name: str) -> None:
        fd = os.open(name, _FOLDER, dir_fd=self.fd)
        os.close(self.fd)
        self.fd = fd

    def down(self, name: str) -> None:
        """Enter the folder *name*."""
        self._move(name)
        self._trail.append(self._here())

    def up(self) -> None:
        """Go back to where :meth:`down` came from; ChangesError when the folder was moved elsewhere meanwhile."""
        self._move("..")
        self._trail.pop()
        if self._here() != self._trail[-1]:
            raise ChangesError("a folder was moved while it was read: pause the sandbox first")

    def names(self) -> list[str]:
        """Return the names in this folder, sorted as bytes; those that are not UTF-8 as Python's file system text."""
        return sorted(os.listdir(self.fd), key=os.fsencode)


def state(name: str, folder: int) -> State | None:
    """Return the State of *name* in the open *folder*, None where it does not exist."""
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return _state_of(info, name, folder)


def _state_of(info: os.stat_result, name: str, folder: int) -> State:
    kind = canonical.TYPES[stat.S_IFMT(info.st_mode)]
    return State(
        type=kind,
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        size=info.st_size if kind == "file" else 0,
        target=os.fsencode(os.readlink(name, dir_fd=folder)) if kind == "symlink" else None,
        rdev=info.st_rdev if kind in ("char", "block") else 0,
    )


def open_folder(root: int, path: bytes) -> int:
    """Return a new descriptor of the folder *path* below the folder *root*, following no link; OSError when it fails."""
    folder = os.dup(root)
    for name in path.split(b"/") if path else ():
        try:
            deeper = os.open(name, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = deeper
    return folder


def open_file(root: int, path: bytes) -> int:
    """Return a descriptor of the regular file *path* below the folder *root*, following no link on the way.

    Raises OSError when a part is missing, and ChangesError when it is no regular file.
    """
    above, _slash, name = path.rpartition(b"/")
    folder = open_folder(root, above)
    try:
        fd = os.open(name, _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ChangesError(f"{canonical.printable(path)}: changed while it was read: pause the sandbox first")
    return fd


def _join(folder: bytes, name: str) -> bytes:
    path = folder + b"/" + os.fsencode(name) if folder else os.fsencode(name)
    if len(path) > LONGEST_PATH:
        raise ChangesError(
            f"{canonical.printable(path[:80])}…: a path of {len(path)} bytes, of which at most {LONGEST_PATH} are read: remove it in the sandbox"
        )
    return path


def _merge(up: Cursor, low: Cursor, found: list[Change], hidden: set[bytes]) -> None:
    """Walk the layer, and the originals wherever the layer has a folder of the same name.

    Fills *found*, and *hidden* with the paths at which nothing of the originals shows through any more.
    """
    room = MOST_CHANGES
    # Per open folder: names still to do, its path, whether `low` stands in it too, whether its originals are hidden.
    open_folders = [(iter(up.names()), b"", True, False)]
    while open_folders:
        names, folder, both, opaque = open_folders[-1]
        name = next(names, None)
        if name is None:
            open_folders.pop()
            if open_folders:
                up.up()
                if both:
                    low.up()
            continue
        path = _join(folder, name)
        room -= 1 + len(path) // _COUNTED_ONCE
        if room < 0:
            raise ChangesError(f"{canonical.printable(path[:80])}: more changes than can be told ({MOST_CHANGES}): remove some in the sandbox")
        info = os.stat(name, dir_fd=up.fd, follow_symlinks=False)
        old = state(name, low.fd) if both else None
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            hidden.add(path)
            if old is not None:
                _gone(path, old, name, low, found)
            continue
        new = _state_of(info, name, up.fd)
        if new.type != "dir":
            hidden.add(path)
            change = _compare(path, old, new, name, low.fd, name, up.fd)
            if change is not None:
                found.append(change)
            if old is not None and old.type == "dir":
                _gone_below(path, name, low, found)
            continue
        if old != new:
            found.append(Change(path, old, new, content=old is None or old.type != "dir"))
        up.down(name)
        opaque = _opaque(up.fd, path) or opaque
        both = old is not None and old.type == "dir"
        inside = up.names()
        if opaque or not both:
            hidden.add(path)
        if both:
            low.down(name)
            if opaque:
                for missing in set(low.names()).difference(inside):
                    gone = state(missing, low.fd)
                    if gone is not None:
                        _gone(_join(path, missing), gone, missing, low, found)
        open_folders.append((iter(inside), path, both, opaque))


def _opaque(folder: int, path: bytes) -> bool:
    attributes = os.listxattr(folder)
    if "trusted.overlay.redirect" in attributes:
        raise ChangesError(f"{canonical.printable(path)}: a redirected folder, by other mount options than ours: mount with redirect_dir=nofollow")
    return "trusted.overlay.opaque" in attributes and os.getxattr(folder, "trusted.overlay.opaque") == b"y"


def _gone(path: bytes, old: State, name: str, low: Cursor, found: list[Change]) -> None:
    found.append(Change(path, old, None))
    if old.type == "dir":
        _gone_below(path, name, low, found)


def _gone_below(path: bytes, name: str, low: Cursor, found: list[Change]) -> None:
    low.down(name)
    found.extend(Change(inner, old, None) for inner, old, _name in _walk(low, path, frozenset()))
    low.up()


def _walk(low: Cursor, top: bytes, without: t.AbstractSet[bytes]) -> t.Iterator[tuple[bytes, State, str]]:
    """Yield path, state and name of all below the cursor, which stands in the entry's folder at each yield."""
    open_folders = [(iter(low.names()), top)]
    while open_folders:
        names, folder = open_folders[-1]
        name = next(names, None)
        if name is None:
            open_folders.pop()
            if open_folders:
                low.up()
            continue
        path = _join(folder, name)
        if path in without:
            continue
        found = state(name, low.fd)
        if found is None:
            continue
        yield path, found, name
        if found.type == "dir":
            low.down(name)
            open_folders.append((iter(low.names()), path))


def _compare(path: bytes, old: State | None, new: State, old_name: str, old_folder: int, new_name: str, new_folder: int) -> Change | None:
    if old is None or (old.type, old.size, old.target, old.rdev) != (new.type, new.size, new.target, new.rdev):
        return Change(path, old, new)
    if new.type == "file" and not _same_bytes(old_name, old_folder, new_name, new_folder):
        return Change(path, old, new)
    return Change(path, old, new, content=False) if old != new else None


def _same_bytes(old_name: str, old_folder: int, new_name: str, new_folder: int) -> bool:
    with (
        os.fdopen(os.open(old_name, _FILE, dir_fd=old_folder), "rb", buffering=0) as old,
        os.fdopen(os.open(new_name, _FILE, dir_fd=new_folder), "rb", buffering=0) as new,
    ):
        one, two = bytearray(_BLOCK), bytearray(_BLOCK)
        while True:
            length = old.readinto(one) or 0
            if length != (new.readinto(two) or 0):
                return False
            if length == 0:
                return True
            if memoryview(one)[:length] != memoryview(two)[:length]:
                return False


def _second_names(upper: str, low: Cursor, found: list[Change], hidden: set[bytes]) -> None:
    """Add the originals whose hard-linked twin was changed: the overlay shows that change at every name of the file.

    With ``index=on`` the kernel keeps each copied-up file of several names in the index, named by the original's file
    handle; the other names have no entry in the layer.
    """
    try:
        with Cursor(index_folder(upper)) as index:
            handles = {key: name for name in index.names() if (key := _handle_in(name)) is not None}
            if not handles:
                return
            for path, old, name in _walk(low, b"", hidden):
                if old.type == "dir" or os.stat(name, dir_fd=low.fd, follow_symlinks=False).st_nlink < 2:
                    continue
                entry = handles.get(_handle_of(name, low.fd))
                new = state(entry, index.fd) if entry else None
                if entry is None or new is None or new.type in ("dir", "char"):
                    continue
                change = _compare(path, old, new, name, low.fd, entry, index.fd)
                if change is not None:
                    found.append(dataclasses.replace(change, index=entry))
    except FileNotFoundError:
        return  # no index: a file system without file handles, on which the overlay breaks hard links at copy-up


def _handle_in(name: str) -> tuple[int, bytes] | None:
    try:
        raw = bytes.fromhex(name)
    except ValueError:
        return None
    return (raw[4], raw[_INDEX_HEADER:]) if len(raw) > _INDEX_HEADER else None


class _Handle(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * _HANDLE_BYTES))


def _handle_of(name: str, folder: int) -> tuple[int, bytes]:
    handle, mount = _Handle(size=_HANDLE_BYTES), ctypes.c_int()
    if _libc.name_to_handle_at(folder, os.fsencode(name), ctypes.byref(handle), ctypes.byref(mount), 0) != 0:
        raise OSError(ctypes.get_errno(), "no file handle for a hard-linked original")
    return handle.type, bytes(handle.data[: handle.size])
