# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree hash of RFC 6962, section 2.1: one sha256 that stands for a list and its order."""

from __future__ import annotations

import hashlib
import typing as t

EMPTY = hashlib.sha256().digest()


def root(entries: t.Sequence[bytes]) -> bytes:
    """Return the Merkle tree hash (32 bytes) of *entries*, each of any length."""
    if not entries:
        return EMPTY
    sha256 = hashlib.sha256
    level = [sha256(b"\0" + entry).digest() for entry in entries]
    while len(level) > 1:
        # A node without a neighbour rises as it is, which makes the left tree the largest full one, as the RFC has it.
        lone = level[len(level) & ~1 :]
        pairs = iter(level)
        level = [sha256(b"\1" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)] + lone
    return level[0]
