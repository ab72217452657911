# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small file systems in files, for what a disk does when it is full, or when the power goes."""

from __future__ import annotations

import contextlib
import subprocess
import typing as t
from pathlib import Path

MAKE = {"ext4": ["mkfs.ext4", "-q", "-F", "-m", "0"], "xfs": ["mkfs.xfs", "-q"]}
OPTIONS = {"ext4": "loop", "xfs": "loop,nouuid"}


def made(image: Path, kind: str, size: int) -> None:
    """Make a file system of *kind* and *size* bytes in the file *image*."""
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*MAKE[kind], str(image)], check=True)


@contextlib.contextmanager
def mounted(image: Path, kind: str, where: Path) -> t.Iterator[Path]:
    """Yield the folder *where* with the file system in *image* mounted on it."""
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", OPTIONS[kind], str(image), str(where)], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)
