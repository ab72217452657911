# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle of hostile work on a real repository: patch and metadata on a fresh copy give the working set's tree.

The repository is the source of three installed collections of the community (more than 1,000 files that nobody here
wrote). The patch is made in a container without network and mounts, as on a host. Needs root, git, a Docker engine and
mmdebstrap; builds an image of its own from the host's apt sources (about 20 s).
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import stat
import subprocess
import threading
import typing as t
import uuid
from pathlib import Path

import pytest
from ansible_collections.dockersandbox.guardrails.plugins.module_utils import bundle, changes, seal
from ansible_collections.dockersandbox.guardrails.tests.unit import overlays

DOCKER = "/usr/bin/docker"
PREFIX = f"bundletree-{uuid.uuid4().hex[:8]}"
SEEDS = int(os.environ.get("SOAK_SEEDS", "2"))
KEY = seal.generate()

HOSTILE = r"""
set -eu
set -- $(git ls-files 'plugins/modules/*.py' | head -40)

# Edited, cut, emptied, with other line ends, without an end of line.
echo '# more' >> "$1"; sed -i 5,9d "$2"; : > "$3"; sed -i 's/$/\r/' "$4"; printf 'no end' >> "$5"; sed -i 1d "$6"
printf 'binary \0\377' >> "$7"; head -c 300000 /dev/urandom > "$8"

# Deleted and renamed: files, folders, with a change and without.
rm "$9" "${10}"; rm -r plugins/module_utils/identity more/crypto
mv "${11}" "plugins/modules/a new name.py"; mv "${12}" plugins/moved.py; echo '# moved' >> plugins/moved.py
mv plugins/lookup plugins/look_up; mv plugins/callback plugins/doc_fragments/callback

# Replaced: the same folder anew, folder by file, file by folder, link by folder, folder by link.
rm -r plugins/filter; mkdir plugins/filter; echo new > plugins/filter/new.py
git show HEAD:plugins/filter/dict.py > plugins/filter/dict.py
rm -r plugins/connection; echo 'was a folder' > plugins/connection
rm "${13}"; mkdir "${13}"; echo in > "${13}/in"; mkdir "${13}/empty"
rm to_plugins; mkdir to_plugins; echo in > to_plugins/in
rm -r plugins/become; ln -s filter plugins/become
rm -r plugins/cache; mkdir -p plugins/cache/deep/er

# Modes.
chmod 0000 "${14}"; chmod 0600 "${15}"; chmod +x "${16}"; chmod 0444 meta; chmod 2775 changelogs; chmod 1777 plugins
chmod 0755 README.md; chmod 0711 .; chown 1500:1500 "${17}" plugins/inventory; chmod 0640 "${18}"; echo x >> "${18}"

# The last files of folders that stay.
rm plugins/test/*; chmod 0750 plugins/test

# Binaries, empty files and folders, links.
mkdir new; cd new
head -c 70000 /dev/urandom > bin; cp /bin/true program; : > empty; mkdir -p none/at/all; chmod 0500 none/at
ln -s nowhere dangling; ln -s /etc/passwd absolute; ln -s ../plugins folder; ln -s $'\xff\xfe\n' strange; ln -s . here
head -c 65536 /dev/zero > zero; echo one > hard1; ln hard1 hard2; mkfifo pipe

# Names.
for name in 'a b' 'q"uote' "it's" 'back\slash' $'new\nline' $'tab\there' -dash -- $'\xff\xfe\x80' $'\x01\x7f' 'trail ' ' lead' '*' \
  ':(glob)**' '$(touch ran)' '`touch ran`' '%s%n' 'ä€😀' $'cr\r' "$(printf 'x%.0s' {1..255})" 'a/b' '.rej' 'x.orig' 'NUL' 'con.txt'; do
  mkdir -p -- "./odd/$(dirname -- "./$name")"; printf '%s\n' "$name" > "./odd/$name"
done
python3 -c 'import os
for _level in range(25):
    os.mkdir("y" * 200)
    os.chdir("y" * 200)
open("leaf", "w").write("deep")'
cd "$ROOT"

# Line ends, attributes, what looks like a patch.
printf 'a\r\nb\nc\r' > new/mixed; printf 'a\r\nb\r\n' > new/dos
printf '* text=auto eol=crlf\n*.py -diff filter=evil\n*.u working-tree-encoding=UTF-16LE\n$Id$ ident\n' > .gitattributes
printf '* text eol=lf ident\n' > new/.gitattributes; printf '$Id$\n' > new/id; printf 'x\ny\n' > new/x.u
git diff HEAD -- "$1" > new/a.patch || true
printf -- '--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-a\n+b\n' > new/b; printf -- '-- \n2.39\n' > new/c
printf '*\n' > .gitignore

# git's own, in every disguise.
git config user.name a; git config user.email a@localhost; git add -f "$1" plugins/moved.py; git commit -qm inside
git config core.fsmonitor "touch $RAN; false"; printf '#!/bin/sh\ntouch %s\n' "$RAN" > .git/hooks/post-checkout; chmod +x .git/hooks/post-checkout
mkdir -p new/.GIT new/sub/.git 'new/git~1' 'new/.git ' new/.Git.; for d in new/.GIT new/sub/.git 'new/git~1' 'new/.git ' new/.Git.; do
  printf '[core]\n\tfsmonitor = touch %s\n' "$RAN" > "$d/config"; done
ln -s ../README.md new/.gitmodules; ln -s x 'new/GITMOD~1'
printf 'evil:\n\ttouch %s\n' "$RAN" > new/Makefile; echo "touch $RAN" > new/.envrc; echo "touch $RAN" > .bashrc
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[str]:
    """An image with git, made of the host's apt sources."""
    archive = tmp_path_factory.mktemp("image") / "git.tar"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "--include=git", "bookworm", archive], check=True)
    subprocess.run([DOCKER, "import", archive, f"{PREFIX}-git"], check=True, stdout=subprocess.DEVNULL)
    archive.unlink()
    yield f"{PREFIX}-git"
    subprocess.run([DOCKER, "rmi", "-f", f"{PREFIX}-git"], check=True, stdout=subprocess.DEVNULL)


class Container:
    """The tool: each call is a container of its own."""

    def __init__(self, image: str) -> None:
        self.image, self.calls = image, 0

    def __call__(self, argv: list[str], stdin: t.Iterable[bytes], stdout: t.BinaryIO) -> int:
        self.calls += 1
        limits = ["--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=1g", "--user=65534:65534"]
        command = [DOCKER, "run", "-i", "--rm", f"--name={PREFIX}", "--workdir=/tmp", *limits, self.image, *argv]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout) as process:

            def feed() -> None:
                assert process.stdin is not None
                for chunk in stdin:
                    process.stdin.write(chunk)
                process.stdin.close()

            feeder = threading.Thread(target=feed)
            feeder.start()
            feeder.join()
            return process.wait()


@pytest.fixture
def tool(image: str) -> Container:
    """A fresh count of containers over the one image."""
    return Container(image)


@pytest.fixture
def root(tmp_path: Path) -> t.Iterator[Path]:
    """A folder whose ``lower`` is a git repository of a real source tree, with a link and an executable."""
    spec = importlib.util.find_spec("ansible_collections")
    assert spec is not None
    found = [Path(place) / "community" for place in spec.submodule_search_locations or ()]
    (source,) = (place for place in found if place.is_dir())
    lower = tmp_path / "lower"
    for name, place in (("general", "."), ("docker", "more/docker"), ("crypto", "more/crypto")):
        shutil.copytree(source / name, lower / place, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (lower / "to_plugins").symlink_to("plugins")
    identity = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for argv in (["init", "-q"], ["add", "-A", "-f"], [*identity, "commit", "-q", "-m", "originals"]):
        subprocess.run(["git", *argv], cwd=lower, check=True)
    assert len(subprocess.run(["git", "ls-files"], cwd=lower, check=True, capture_output=True).stdout.splitlines()) >= 1000
    yield tmp_path
    # Deeper than the clean-up of older test runners goes.
    for name in ("upper", "applied", "plain"):
        subprocess.run(["rm", "-rf", tmp_path / name], check=True)


def make(root: Path, tool: bundle.Tool, act: t.Callable[[Path], None]) -> tuple[dict[bytes, overlays.Seen], dict[str, t.Any]]:
    """Bundle what *act* does; return the tree it left and the bundle's summary. The originals must stay as they are."""
    lower, upper = root / "lower", root / "upper"
    before = overlays.picture(lower)
    with overlays.overlay(root) as mounted:
        act(mounted.merged)
        wanted = overlays.picture(mounted.merged)

    def sign(subjects: dict[str, str], predicate: dict[str, t.Any]) -> dict[str, t.Any]:
        return seal.sign(seal.statement(subjects, bundle.KIND, predicate), KEY)

    found = changes.read(str(upper), str(lower))
    summary = bundle.write(str(root / "bundle"), found, str(upper), str(lower), tool, {"run": "test"}, sign)
    assert overlays.picture(lower) == before
    assert bundle.verify(str(root / "bundle"), KEY.public) == []
    return wanted, summary


def differences(wanted: dict[bytes, overlays.Seen], found: dict[bytes, overlays.Seen]) -> dict[bytes, tuple[t.Any, t.Any]]:
    """Return what differs but the set-id bits of files, which an apply never gives."""

    def told(seen: overlays.Seen | None) -> overlays.Seen | None:
        return seen._replace(mode=seen.mode & 0o1777) if seen and stat.S_ISREG(seen.type) else seen

    pairs = {path: (told(wanted.get(path)), told(found.get(path))) for path in wanted.keys() | found.keys()}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def copy(root: Path, name: str) -> Path:
    subprocess.run(["cp", "-a", root / "lower", root / name], check=True)
    return root / name


def test_hostile_work_comes_out_and_goes_in(root: Path, tool: Container) -> None:
    ran = root / "ran"

    def act(merged: Path) -> None:
        environment = {**os.environ, "ROOT": str(merged), "RAN": str(ran), "GIT_CONFIG_GLOBAL": "/dev/null"}
        subprocess.run(["bash", "-c", HOSTILE], cwd=merged, check=True, env=environment)

    wanted, summary = make(root, tool, act)
    assert summary["entries"] > 150
    assert tool.calls == 1
    assert summary["not_carried"] == {}
    assert {".bashrc", "new/.envrc", "new/Makefile", ".git/hooks/post-checkout", ".git/config"} <= summary["flagged"].keys()
    # git is trusted with everything but what it refuses on purpose, and what lies in the place of that.
    assert all(".git" in path.lower() or "git" in path.lower() or len(path) > 4000 for path in summary["unpatched"])
    ran.unlink(missing_ok=True)  # the sandbox may run what it planted

    assert bundle.apply(str(root / "bundle"), str(copy(root, "applied")), KEY.public) == []
    assert differences(wanted, overlays.picture(root / "applied")) == {}

    # The patch by git as anybody would, in the repository, then the rest.
    plain = copy(root, "plain")
    subprocess.run(["git", "apply", root / "bundle/changes.patch"], cwd=plain, check=True)
    assert bundle.apply(str(root / "bundle"), str(plain), KEY.public, run_git=False) == []
    assert differences(wanted, overlays.picture(plain)) == {}
    assert not ran.exists()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_work(root: Path, tool: Container, seed: int) -> None:
    chance = random.Random(f"tree {seed}")
    wanted, summary = make(root, tool, lambda merged: overlays.scramble(chance, merged, 150))
    bundle.apply(str(root / "bundle"), str(copy(root, "applied")), KEY.public)
    assert differences(wanted, overlays.picture(root / "applied")) == {}
    assert tool.calls == 1
    assert summary["entries"] > 20
