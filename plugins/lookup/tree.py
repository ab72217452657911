# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a folder and of all that is below it, on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
name: tree
short_description: Text files of folders on the controller, with all that is below them
version_added: 0.1.0
description:
  - Returns what M(dockersandbox.guardrails.locked_files) takes as O(dockersandbox.guardrails.locked_files#module:files), sorted by
    path. Bytecode is left out.
author: DockerSandboxApp authors (@dockersandboxapp)
options:
  _terms:
    description: The folders.
    required: true
    type: list
    elements: path
  to:
    description: Where on the host the files are to be.
    required: true
    type: path
"""

EXAMPLES = r"""
- name: The services
  dockersandbox.guardrails.locked_files:
    files: "{{ query('dockersandbox.guardrails.tree', 'src', to='/opt/DockerSandboxApp/src') }}"
"""

RETURN = r"""
_raw:
  description: The files, each with its C(path) on the host and its C(content).
  type: list
  elements: dict
"""

import os
import pathlib
import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase


def files(folder: pathlib.Path, to: str) -> list[dict[str, str]]:
    """Return the files below *folder* as they are to be below *to*. Raises OSError and UnicodeDecodeError."""
    found = []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = pathlib.Path(parent, name)
            if path.suffix != ".pyc":
                found.append({"path": os.path.join(to, path.relative_to(folder)), "content": path.read_text(encoding="utf-8")})
    return sorted(found, key=lambda file: file["path"])


def _raise(error: OSError) -> t.NoReturn:
    raise error


class LookupModule(LookupBase):  # type: ignore[misc]
    """The lookup."""

    def run(self, terms: list[str], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[dict[str, str]]:
        """Return the files of all *terms*."""
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return [file for term in terms for file in files(pathlib.Path(term).resolve(), self.get_option("to"))]
        except (OSError, UnicodeDecodeError) as error:
            raise AnsibleError(f"tree: {error}") from error
