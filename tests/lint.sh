#!/usr/bin/env bash
# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Every linter is run, then the failed ones are named: one round shows all there is to mend.
#   tests/lint.sh [quick]     quick leaves out what takes more than a few seconds
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

failed=()
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "lint: $name ok"
    else
        echo "$output"
        echo "lint: $name FAILED"
        failed+=("$name")
    fi
}

# Python without the suffix, and shell with and without it, are known by their first line.
python_scripts() { git grep -lzE '^#!.*python' -- bin roles tests ':!*.py' ':!*.md' | xargs -0r realpath --relative-to=. ; }
shell_scripts() { git grep -lE '^#!.*/(ba|da)?sh' -- .ci bin phases roles tests molecule .config ':!*.j2' ':!*.md'; }

mypy_all() {
    # Inside the link the collection has its full name; outside it every module would be seen under two names.
    local root=.collections/ansible_collections/dockersandbox/guardrails status=0 file
    mypy -p ansible_collections.dockersandbox.guardrails.plugins || status=1
    while read -r file; do mypy "$file" || status=1; done < <(python_scripts)
    mypy tests/*/*.py tests/e2e/bare/*.py || status=1
    return $status
}

ansible_doc_all() {
    local status=0 file kind
    for kind in module action callback; do
        for file in plugins/"${kind/%module/modules}"/*.py; do
            [[ -e $file && $kind != action ]] || continue
            ansible-doc -t "$kind" "dockersandbox.guardrails.$(basename "$file" .py)" >/dev/null || status=1
        done
    done
    for file in roles/*/meta/argument_specs.yml; do
        [[ -e $file ]] || continue
        ansible-doc -t role "dockersandbox.guardrails.$(cut -d/ -f2 <<<"$file")" >/dev/null || status=1
    done
    return $status
}

check ruff ruff check -q --no-cache .
check yamllint yamllint -s .
if [[ ${1:-} != quick ]]; then
    check mypy mypy_all
    check ansible-doc ansible_doc_all
    check ansible-lint ansible-lint -q --offline
    if command -v shellcheck >/dev/null; then
        check shellcheck bash -c "$(declare -f shell_scripts); shell_scripts | xargs -r shellcheck -x"
    fi
fi

if ((${#failed[@]})); then
    echo "lint: failed: ${failed[*]}" >&2
    exit 1
fi
