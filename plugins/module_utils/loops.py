# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that hold a file system of their own, mounted through a loop device: what lies in one can never outgrow it.

An image is preallocated, so that the host's disk is never promised twice, and holds an XFS with reflink.
Source: loop(4), mkfs.xfs(8), xfs_growfs(8), ioctl_xfs_fsgeometry(2), linux/loop.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import pathlib
import shutil
import struct
import subprocess
import typing as t

from ansible_collections.dockersandbox.guardrails.plugins.module_utils import atomic, mounts

CONTROL = "/dev/loop-control"
# Of the room, in percent: inodes of 512 bytes, so one for each 10 KiB. Without it, files of no size would be a million
# for each gigabyte, which the host has to walk.
INODES = 5

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _LOOP_SET_CAPACITY, _LOOP_GET_STATUS64 = 0x4C82, 0x4C0A, 0x4C07, 0x4C05
_AUTOCLEAR, _DIRECT_IO = 4, 16
_CONFIG = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 8Q")  # struct loop_config: descriptor, block size, status, reserved
_STATUS = struct.Struct("=5Q 4I 64s 64s 32s 2Q")  # struct loop_info64: device and inode of the image come first
_GEOMETRY, _XFS_IOC_FSGEOMETRY_V1 = struct.Struct("=8I Q 72x"), 0x80705864
_SUPERBLOCK = struct.Struct(">4s I Q")  # magic, bytes a block, blocks
_LOOP_MAJOR = 7
_SLACK = 1 << 20  # a file system leaves out what is too little for a last allocation group
_TRIES = 20
# What a fresh one holds: the work layer, and the upper one under a name that says that nobody has used it yet.
FRESH = "upper.new"
_PROTOTYPE = f"/dev/null\n0 0\nd--700 0 0\n{FRESH} d--755 0 0 $\nwork d--700 0 0 $\n$\n".encode()
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LoopError(mounts.MountError):
    """An image cannot be made or mounted; the text says of which and why, in one line."""


def unavailable() -> str | None:
    """Return why this machine cannot mount images, None when it can; a device is tried."""
    try:
        with _control() as control:
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        os.close(os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"there is no loop device ({error.filename or CONTROL}: {error.strerror})"
    return None if _knows_xfs() else "the kernel has no XFS"


@contextlib.contextmanager
def _control() -> t.Iterator[int]:
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield control
    finally:
        os.close(control)


def _knows_xfs() -> bool:
    if "\txfs\n" in pathlib.Path("/proc/filesystems").read_text(encoding="utf-8"):
        return True
    with contextlib.suppress(OSError):
        # A module that nobody has needed yet: the first mount loads it.
        return "/xfs.ko" in pathlib.Path("/lib/modules", os.uname().release, "modules.dep").read_text(encoding="utf-8")
    return False


def make(image: str, size: int, inodes: int = INODES, fill: t.Callable[[str], None] | None = None) -> None:
    """Make the *image* of *size* bytes, preallocated and with its file system in it; it is there whole or not at all.

    *inodes* is how much of it files may take, in percent. *fill* is given the folder where the file system is mounted
    before the image has its name.
    """
    spare = f"{image}.new"
    _shut(spare)
    try:
        with open(os.open(spare, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            with os.fdopen(os.memfd_create("prototype"), "wb", buffering=0) as prototype:
                prototype.write(_PROTOTYPE)
                layout = f"/dev/fd/{prototype.fileno()}"
                # -K: discarding would give the preallocated blocks back.
                _run("mkfs.xfs", "-q", "-K", "-m", "reflink=1", "-i", f"maxpct={inodes}", "-p", layout, spare, keep=(prototype.fileno(),))
            os.fsync(file.fileno())
        if fill:
            with opened(spare) as folder:
                fill(folder)
        os.rename(spare, image)
    except OSError as error:
        raise LoopError(f"{image}: cannot be made: {atomic.reason(error)}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(spare)
    atomic.sync_folder(pathlib.Path(image).parent)


def _run(*argv: str, keep: t.Collection[int] = ()) -> None:
    program = shutil.which(argv[0], path=_PATH)
    if program is None:
        raise LoopError(f"{argv[0]} is missing: run phase bootstrap (--tags bootstrap) first")
    done = subprocess.run([program, *argv[1:]], pass_fds=keep, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoopError(f"{argv[0]}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")


def devices(image: str) -> list[str]:
    """Return the loop devices that stand for *image*, by whatever name it was attached; [] for one that is not there."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        wanted = os.stat(image)
        for path in sorted(glob.glob("/sys/block/loop*/loop")):
            device = f"/dev/{path.split('/')[3]}"
            with contextlib.suppress(OSError):
                if _behind(device) == (wanted.st_dev, wanted.st_ino):
                    found.append(device)
    return found


def _behind(device: str) -> tuple[int, int]:
    with open(device, "rb", buffering=0) as file:
        status = _STATUS.unpack(fcntl.ioctl(file, _LOOP_GET_STATUS64, bytes(_STATUS.size)))
    return status[0], status[1]


def mount(image: str, target: str) -> None:
    """Mount the file system in *image* at the folder *target*, nosuid and nodev; LoopError when it cannot be."""
    check(image)
    with _attached(image) as device:
        try:
            mounts.xfs(device, target)
        except mounts.MountError as error:
            raise LoopError(f"{image}: {error}: see dmesg, mend the image with xfs_repair or restore it") from error


@contextlib.contextmanager
def opened(image: str) -> t.Iterator[str]:
    """Yield a folder beside *image* at which its file system is mounted while the block runs."""
    _shut(image)
    os.mkdir(_aside(image), 0o700)
    try:
        mount(image, _aside(image))
        yield _aside(image)
        mounts.sync(_aside(image))
    finally:
        _shut(image)


def _aside(image: str) -> str:
    return f"{image}.mounted"


def _shut(image: str) -> None:
    while mounts.mounted(_aside(image)):
        mounts.unmount(_aside(image))
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(_aside(image))


def check(image: str) -> None:
    """Raise LoopError for an *image* that is cut short or holds no file system of ours; it may be mounted."""
    try:
        with open(image, "rb") as file:
            magic, block, count = _SUPERBLOCK.unpack(file.read(_SUPERBLOCK.size).ljust(_SUPERBLOCK.size, b"\0"))
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise LoopError(f"{image}: cannot be read: {atomic.reason(error)}") from error
    if magic != b"XFSB":
        raise LoopError(f"{image}: holds no XFS: it was overwritten; restore it")
    if size < block * count:
        raise LoopError(f"{image}: is too small, {size} bytes of the {block * count} that its file system has: it was cut short; restore it")


@contextlib.contextmanager
def _attached(image: str) -> t.Iterator[str]:
    """Yield the one loop device of *image*. The kernel lets go of it after the last mount."""
    if len(known := devices(image)) > 1:
        raise LoopError(f"{image}: is attached twice ({', '.join(known)}): unmount all but one, or restart the machine")
    if known:
        yield known[0]
        return
    device, file = _attach(image)
    try:
        yield device
    finally:
        os.close(file)


def _attach(image: str) -> tuple[str, int]:
    try:
        with open(image, "r+b", buffering=0) as file, _control() as control:
            for _try in range(_TRIES):
                device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
                loop = os.open(device, os.O_RDWR | os.O_CLOEXEC)
                # Direct: else the host's memory would hold a second copy of what the sandbox writes.
                status = (0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR | _DIRECT_IO, image.encode()[:63], b"", b"", 0, 0)
                try:
                    fcntl.ioctl(loop, _LOOP_CONFIGURE, _CONFIG.pack(file.fileno(), 0, *status, *[0] * 8))
                except OSError as error:
                    os.close(loop)
                    if error.errno != errno.EBUSY:
                        raise
                    continue  # somebody else was given the same one
                # A host that trims whatever is mounted would give the preallocated blocks back; elsewhere they are filled again.
                with contextlib.suppress(OSError):
                    pathlib.Path("/sys/block", device[5:], "queue/discard_max_bytes").write_text("0", encoding="ascii")
                return device, loop
    except OSError as error:
        raise LoopError(f"{image}: cannot be attached to a loop device: {atomic.reason(error)}") from error
    raise LoopError(f"{image}: cannot be attached: all loop devices are taken the moment they are free")


def problem(image: str, target: str) -> str | None:
    """Return why the file system of *image* is not mounted at *target* as it must be, None when it is."""
    found = mounts.mounted(target)
    if len(found) != 1:
        return "is not mounted" if not found else f"is mounted {len(found)} times"
    if missing := {"rw", "nosuid", "nodev"} - found[0].options:
        return f"is mounted without {', '.join(sorted(missing))}"
    major, _colon, minor = found[0].device.partition(":")
    device = f"/dev/loop{minor}"
    if int(major) != _LOOP_MAJOR or [device] != devices(image):
        return f"is not a mount of {image} alone"
    return None


def short(image: str, target: str, size: int) -> bool:
    """Tell whether *image*, mounted at *target*, is smaller than *size* bytes, or has holes."""
    return os.stat(image).st_blocks * 512 < size or _geometry(target) < size - _SLACK


def _geometry(target: str) -> int:
    folder = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        block, *_rest, count = _GEOMETRY.unpack(fcntl.ioctl(folder, _XFS_IOC_FSGEOMETRY_V1, bytes(_GEOMETRY.size)))
    finally:
        os.close(folder)
    return int(block) * int(count)


def share(target: str, percent: int) -> None:
    """Let the files of the file system mounted at *target* take *percent* of its room."""
    _run("xfs_growfs", "-m", str(percent), target)


def fill_up(image: str, target: str, size: int) -> None:
    """See that the mounted *image* has *size* bytes: its holes are filled, and the file system grows in use."""
    try:
        with open(image, "r+b", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, size)
        for device in devices(image):
            with open(device, "rb", buffering=0) as loop:
                fcntl.ioctl(loop, _LOOP_SET_CAPACITY)
    except OSError as error:
        raise LoopError(f"{image}: cannot be given {size} bytes: {atomic.reason(error)}") from error
    _run("xfs_growfs", "-d", target)
