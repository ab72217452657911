# Copyright (c) 2026 The DockerSandboxApp authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The distribution's own interpreter: one on PATH may be a version manager's shim.
PYTHON := /usr/bin/python3
VENV := .venv
LINK := .collections/ansible_collections/dockersandbox/guardrails
ARGS ?=
# In the order of the phases, each on what the one before has left.
SCENARIOS := bootstrap env network fs logging rollback cost default
# What goes on on a bare machine in a container, one story after the other.
BARE := $(patsubst %,tests/e2e/test_%.py,bare boot cost logging monitored network record) tests/soak
# Stories that take up to a quarter of an hour each: `make e2e` has them, and `make test` has not.
LONG := $(patsubst %,tests/e2e/test_%.py,agents gvisor monitored) tests/soak

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Without this an ansible.cfg in a world-writable checkout is ignored.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_PYTHON_VERSION_WARNING := 1

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo 'make: installing python3-venv'; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && apt-get install -qq -y --no-install-recommends python3-venv >/dev/null; }
	@$(PYTHON) -m venv $(VENV)

# --no-compile: what is imported is compiled then, and most never is.
$(VENV)/.site: requirements/site.txt | $(VENV)/bin/python
	@echo 'make: installing the pinned requirements of `make site`'
	@$(VENV)/bin/pip install -qq --no-compile --require-hashes -r requirements/site.txt
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.site
	@echo 'make: installing the pinned requirements of `make test`'
	@$(VENV)/bin/pip install -qq --no-compile --require-hashes -r requirements/test.txt
	@touch $@

$(VENV)/.spend: requirements/spend.txt $(VENV)/.site
	@echo 'make: installing the pinned requirements of `make spend`'
	@$(VENV)/bin/pip install -qq --no-compile --require-hashes -r requirements/spend.txt
	@touch $@

$(LINK):
	@mkdir -p $(dir $@)
	@ln -sfn ../../.. $@

.PHONY: venv
venv: $(VENV)/.site | $(LINK) ## The virtual environment of `make site`

.PHONY: venv-test
venv-test: $(VENV)/.test | $(LINK) ## The virtual environment of `make test`

.PHONY: site
site: venv ## Make this machine (or inventory) a host with sandboxes; ARGS="--tags env --check --diff" and so on
	@PYTHONPATH=.collections python -m ansible_collections.dockersandbox.guardrails.plugins.action.config_check configs
	@ansible-playbook playbooks/site.yml $(ARGS)

.PHONY: spend
spend: venv $(VENV)/.spend ## What LLM calls cost, as a table and a chart; ARGS="-e spend_days=7"
	@ansible-playbook playbooks/spend.yml $(ARGS)

.PHONY: test
test: ## Lint, unit, services, sanity, Molecule, end to end but for the longest
	@$(MAKE) --no-print-directory lint unit engine
	@# The two share nothing but the processors, and each waits for long.
	@$(MAKE) --no-print-directory -j2 -Otarget test-bare test-here

.PHONY: test-bare test-here
test-bare:
	@$(MAKE) --no-print-directory e2e-bare LEFT_OUT='$(LONG)'
	@$(MAKE) --no-print-directory sanity

test-here:
	@$(MAKE) --no-print-directory services
	@$(MAKE) --no-print-directory molecule
	@$(MAKE) --no-print-directory e2e-here LEFT_OUT='$(LONG)'

.PHONY: test-fast
test-fast: venv-test ## The quick checks: lint of the Python and YAML, unit tests
	@tests/lint.sh quick
	@$(MAKE) --no-print-directory unit

.PHONY: lint
lint: venv-test ## ansible-lint (production), yamllint, ruff, mypy, ansible-doc, shellcheck
	@tests/lint.sh

.PHONY: unit
unit: venv-test ## Unit tests
	@python -m pytest -q -n 2 --dist worksteal tests/unit $(ARGS)

.PHONY: services
services: venv-test engine ## The services, as real processes over real sockets
	@python -m pytest -q tests/services $(ARGS)

.PHONY: sanity
sanity: venv-test ## ansible-test sanity
	@tests/sanity/run.sh $(ARGS)

.PHONY: engine
engine: ## What Molecule and the end-to-end tests need on this machine: a Docker engine, mmdebstrap
	@tests/setup.sh

.PHONY: molecule
molecule: venv-test engine ## The Molecule scenarios; ARGS="-s env" for one
	@# A run that was cut off leaves a machine, and a note that it is there.
	@tests/machine.py down guardrails-molecule
	@molecule reset -s default >/dev/null 2>&1
	@$(if $(ARGS),,GUARDRAILS_BEFORE=) molecule test $(or $(ARGS),$(addprefix -s ,$(SCENARIOS)))

.PHONY: e2e
e2e: venv-test engine ## End to end, all of it: on this machine, and on a bare one, with a few kills and attacks
ifeq ($(strip $(ARGS)),)
	@$(MAKE) --no-print-directory -j2 -Otarget e2e-bare e2e-here
else
	@python -m pytest -q -rA tests/e2e tests/soak tests/security --short $(ARGS)
endif

.PHONY: e2e-bare e2e-here
e2e-bare:
	@python -m pytest -q -rA --durations 10 $(filter-out $(LEFT_OUT),$(BARE))

e2e-here:
	@python -m pytest -q -rA --durations 10 tests/e2e tests/security --short $(addprefix --ignore=,$(BARE) $(LEFT_OUT))

.PHONY: security
security: venv-test ## Every attack on the sandboxes of this host, after `make site`, as a table; ARGS="-k namespaces"
	@python -m pytest -q -s tests/security $(ARGS)

.PHONY: bench
bench: venv-test ## The figures of docs/, measured on this machine
	@tests/setup.sh bench
	@python -m pytest -q -s tests/bench $(ARGS)

.PHONY: soak
soak: venv-test engine ## Fifty kills at random moments of converge, run, restore and teardown, a hundred of the recorder and of the LLM gateway, fifty of egress; ARGS="--rounds 500 --seed 1"
	@python -m pytest -q -s tests/soak tests/services/test_recorder_crashes.py tests/services/test_egress_kills.py tests/services/test_llm_burst.py \
		tests/e2e/test_rollback.py::test_whatever_is_killed_the_next_finishes $(or $(ARGS),--rounds 50 --recorder-kills 100 --llm-kills 100)

.PHONY: docs
docs: venv-test ## Write the roles' README from their argument specs
	@for role in roles/*; do aar-doc "$$role" markdown; done

.PHONY: lock
lock: venv-test ## Renew requirements/*.txt from requirements/*.in
	@cd requirements && for name in site services spend test; do \
	  uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes \
	    --custom-compile-command 'make lock' -o $$name.txt $$name.in; done

.PHONY: clean
clean: ## Remove what the targets above made in the checkout
	@rm -rf $(VENV) .collections .ansible .cache .mypy_cache .pytest_cache .ruff_cache tests/output
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
