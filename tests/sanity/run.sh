#!/usr/bin/env bash
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ansible-test sanity over the tracked files, in a folder with the collection's full name, as ansible-test demands.
set -euo pipefail
cd "$(dirname "$0")/../.."

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
collection=$tree/ansible_collections/dockersandbox/guardrails
mkdir -p "$collection"
git ls-files -z | tar -c --null --files-from=- --ignore-failed-read 2>/dev/null | tar -x -C "$collection"
# ansible-test reads the list of files from git.
git -C "$collection" init -q
git -C "$collection" add -A

# ansible-test fetches a script that installs pip into its virtual environments from a host that a closed network does
# not reach. A stand-in of the same name, over pip's own wheel from the package index, is used from its cache instead.
cache=~/.ansible/test/cache
version=$(python - <<'PY'
import sys

from ansible_test._internal import python_requirements as requirements
from ansible_test._internal.host_configs import NativePythonConfig

version = f"{sys.version_info.major}.{sys.version_info.minor}"
print(requirements.get_venv_packages(NativePythonConfig(version=version, path=sys.executable))["pip"])
PY
)
script=$cache/get_pip_${version//./_}.py
if [[ ! -e $script ]]; then
    mkdir -p "$cache"
    python -m pip download -qq --no-deps -d "$cache" "pip==$version"
    cat >"$script.new" <<PY
import sys

sys.path.insert(0, "$cache/pip-$version-py3-none-any.whl")
from pip._internal.cli.main import main

if __name__ == "__main__":
    arguments = [item for item in sys.argv[1:] if item not in ("--no-setuptools", "--no-wheel")]
    sys.exit(main(["install", *arguments]))
PY
    mv "$script.new" "$script"
fi

cd "$collection"
# A collections path of the checkout would put this collection in ansible-test's sight twice.
unset ANSIBLE_CONFIG ANSIBLE_COLLECTIONS_PATH PYTHONPATH
# One interpreter: a version manager's shims for others would be taken for interpreters, and fail. What pip says of its
# downloads, and where from, is left out.
ansible-test sanity --color no --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" "$@" 2>&1 |
    { grep -vE '^ +(Downloading|━)|^(Collecting|Processing|Looking in|Installing collected|Successfully|WARNING: Location)' || true; }
echo "sanity: ok"
