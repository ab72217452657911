# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts that util-linux of Debian 12 cannot make: idmapped ones, by the kernel's own calls.

Source: open_tree(2), mount_setattr(2), move_mount(2), user_namespaces(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import typing as t

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # the same numbers on every architecture
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 0x1, 0x2, 0x4, 0x00100000
_CLONE_NEWUSER = 0x10000000
_RENAME_EXCHANGE = 2
_MS_NOSUID, _MS_NODEV, _MNT_DETACH = 2, 4, 2

_libc = ctypes.CDLL(None, use_errno=True)


class MountError(Exception):
    """A mount could not be made; the text is one line for the operator."""


class Mount(t.NamedTuple):
    """One line of mountinfo, unescaped: where, what, how; *shared* are the options of the file system, for all its mounts."""

    point: str
    device: str
    root: str
    options: frozenset[str]
    kind: str
    shared: frozenset[str]


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


def _syscall(number: int, *arguments: t.Any) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@contextlib.contextmanager
def _user_namespace(uid: tuple[int, int], gid: tuple[int, int]) -> t.Iterator[int]:
    """Yield a descriptor of a user namespace that maps one uid and one gid: ``(on disk, seen)`` each."""
    ready_r, ready_w = os.pipe()
    hold_r, hold_w = os.pipe()
    child = os.fork()
    if child == 0:
        # Only system calls from here on: this may be the fork of a process with threads.
        code = 1
        with contextlib.suppress(BaseException):
            os.close(hold_w)
            if _libc.unshare(_CLONE_NEWUSER) == 0:
                os.write(ready_w, b"1")
                os.read(hold_r, 1)
                code = 0
        os._exit(code)
    try:
        os.close(ready_w)
        os.close(hold_r)
        if os.read(ready_r, 1) != b"1":
            raise MountError("the kernel gives no user namespace (see user.max_user_namespaces): idmapped mounts need one")
        for name, (disk, seen) in (("uid_map", uid), ("gid_map", gid)):
            with open(f"/proc/{child}/{name}", "w", encoding="ascii") as file:
                file.write(f"{disk} {seen} 1\n")
        namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield namespace
        finally:
            os.close(namespace)
    finally:
        os.close(ready_r)
        os.close(hold_w)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def bind_readonly(source: str, target: str, uid: tuple[int, int] | None, gid: tuple[int, int] | None) -> None:
    """Mount the tree *source* alone (no mounts inside it) at the folder *target*: read-only, nosuid, nodev.

    *uid* and *gid* are ``(on disk, as seen through the mount)``; None for both leaves ownership as it is. Any other
    owner in the tree is seen as 65534. Raises MountError, with nothing mounted, when the file system cannot do it.
    """
    try:
        tree = _syscall(_OPEN_TREE, _AT_FDCWD, source.encode(), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    except OSError as error:
        raise MountError(f"{source}: cannot be mounted: {error.strerror}") from error
    try:
        attributes = _Attributes(set=_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
        with contextlib.ExitStack() as stack:
            if uid is not None and gid is not None:
                attributes.userns = stack.enter_context(_user_namespace(uid, gid))
                attributes.set |= _ATTR_IDMAP
            size = ctypes.c_size_t(ctypes.sizeof(attributes))
            try:
                _syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size)
            except OSError as error:
                raise MountError(
                    f"{source}: its file system takes no idmapped mount ({error.strerror}); put it on ext4 or XFS, or"
                    " declare the sandbox with run_as: owner"
                ) from error
        _syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
    except OSError as error:
        raise MountError(f"{target}: cannot mount {source} here: {error.strerror}") from error
    finally:
        os.close(tree)


def tmpfs(target: str, size: str) -> None:
    """Mount an empty tmpfs of at most *size* (kernel notation, ``16m``) at *target*: nosuid, nodev, mode 0755."""
    options = f"size={size},mode=0755".encode()
    if _libc.mount(b"guardrails", target.encode(), b"tmpfs", ctypes.c_ulong(_MS_NOSUID | _MS_NODEV), options) != 0:
        raise MountError(f"{target}: cannot mount a tmpfs here: {os.strerror(ctypes.get_errno())}")


def xfs(device: str, target: str) -> None:
    """Mount the XFS on *device* at the folder *target*: nosuid, nodev."""
    if _libc.mount(device.encode(), target.encode(), b"xfs", ctypes.c_ulong(_MS_NOSUID | _MS_NODEV), None) != 0:
        raise MountError(f"{target}: cannot mount {device} here: {os.strerror(ctypes.get_errno())}")


def exchange(one: str, other: str) -> None:
    """Let two folders of one file system take each other's place at once. Raises OSError. Source: renameat2(2)."""
    if _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), one)


def sync(folder: str) -> None:
    """Make durable all that was written to the file system of *folder*. Raises OSError. Source: syncfs(2)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(handle) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), folder)
    finally:
        os.close(handle)


def unmount(target: str) -> None:
    """Take away the topmost mount at *target*, lazily; MountError when there is none."""
    if _libc.umount2(target.encode(), _MNT_DETACH) != 0:
        raise MountError(f"{target}: cannot be unmounted: {os.strerror(ctypes.get_errno())}")


def mounted(at: str | None = None) -> list[Mount]:
    """Return the mounts of this process's namespace in mount order, those at the path *at* alone when given."""
    found = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            left, right = line.decode("utf-8", "surrogateescape").split(" - ", 1)
            fields = left.split(" ")
            kind, _source, shared = right.split(" ")[:3]
            mount = Mount(
                _unescape(fields[4]),
                fields[2],
                _unescape(fields[3]),
                frozenset(fields[5].split(",")),
                kind,
                frozenset(shared.strip().split(",")),
            )
            if at is None or mount.point == at:
                found.append(mount)
    return found


def _unescape(field: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field
