#!/usr/bin/env bash
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Every linter is run, then the failed ones are named: one round shows all there is to mend.
#   tests/lint.sh [quick]     quick leaves out what takes more than a few seconds
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

names=()
pids=()
said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT
# They run side by side: most take one processor.
check() {
    local name=$1
    shift
    "$@" >"$said/$name" 2>&1 &
    names+=("$name")
    pids+=($!)
}

# Scripts without a suffix are known by their first line.
with_first_line() { git ls-files -- .ci bin roles tests ':!*.py' ':!*.j2' | xargs -r awk 'FNR == 1 && /^#!.*'"$1"'/ { print FILENAME }'; }

mypy_all() {
    local status=0 file
    # Inside the link the collection has its full name; outside it every module would be seen under two names.
    mypy -p ansible_collections.dockersandbox.guardrails.plugins || status=1
    mypy -p dockersandbox || status=1
    git ls-files -z 'tests/*.py' | xargs -0 mypy || status=1
    for file in $(with_first_line python); do mypy "$file" || status=1; done
    return $status
}

ansible_doc_all() {
    local status=0 all
    mapfile -t all < <(basename -as .py plugins/modules/*.py)
    ansible-doc -t module "${all[@]/#/dockersandbox.guardrails.}" >/dev/null || status=1
    mapfile -t all < <(basename -a roles/*)
    ansible-doc -t role "${all[@]/#/dockersandbox.guardrails.}" >/dev/null || status=1
    return $status
}

readme_all() {
    local copy status=0 role
    copy=$(mktemp -d)
    cp -r roles galaxy.yml "$copy"
    for role in roles/*; do
        (cd "$copy" && aar-doc "$role" markdown) || status=1
        diff -u "$role/README.md" "$copy/$role/README.md" || status=1
    done
    ((status == 0)) || echo "run 'make docs'"
    rm -rf "$copy"
    return $status
}

check ruff ruff check -q --no-cache .
check yamllint yamllint -s .
if [[ ${1:-} != quick ]]; then
    check mypy mypy_all
    check ansible-doc ansible_doc_all
    check readme readme_all
    check ansible-lint ansible-lint -q --offline
    if command -v shellcheck >/dev/null; then
        mapfile -t scripts < <(with_first_line 'sh$')
        check shellcheck shellcheck -x "${scripts[@]}"
    fi
fi

failed=()
for number in "${!names[@]}"; do
    name=${names[number]}
    if wait "${pids[number]}"; then
        echo "lint: $name ok"
    else
        cat "$said/$name"
        echo "lint: $name FAILED"
        failed+=("$name")
    fi
done
if ((${#failed[@]})); then
    echo "lint: failed: ${failed[*]}" >&2
    exit 1
fi
