# Two commands matter: `make demo` and `make test`. Everything is installed below this directory; `make clean` removes it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
COLLECTION := .ansible/collections/ansible_collections/edgeai/fleet
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.ansible/collections
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help demo demo-clean test test-lab test-eda unit integration lint sanity reference bench lab lab-down archive clean venv-demo venv-test venv-lint

help:  ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(COLLECTION):
	@mkdir -p $(dir $@) && ln -sfn ../../../.. $@

venv-demo: $(COLLECTION)
	@tools/ensure_venv.sh .venv requirements/controller.txt requirements/build.txt

venv-test: $(COLLECTION)
	@tools/system_packages.sh
	@tools/ensure_venv.sh .venv requirements/controller.txt requirements/build.txt requirements/test.txt

venv-lint: $(COLLECTION)
	@tools/ensure_venv.sh .venv requirements/controller.txt requirements/build.txt requirements/test.txt requirements/lint.txt

demo: venv-demo  ## A good release over a local fleet in waves, then a bad one that comes back by itself
	@$(BIN)/python examples/demo/run.py

demo-clean:  ## Stop the demo's devices and remove what it wrote
	@if [ -d demo-out ]; then $(BIN)/python examples/demo/run.py --clean; fi

test: venv-test  ## All tests (root, for the lab of real devices; without it: make unit integration)
	@EDGEAI_LAB_ARM64=0 $(BIN)/python -m pytest -n 2 -m "not thorough"

test-lab: venv-test  ## Those on the lab alone, and more of them: emulated arm64, molecule scenarios, twice the power cuts
	@$(BIN)/python -m pytest tests/lab

test-eda: venv-test  ## The rulebook in a real ansible-rulebook (needs Java 17)
	@$(BIN)/python -m pytest -m eda tests/integration/test_rulebook.py

unit: venv-test
	@$(BIN)/python -m pytest tests/unit

integration: venv-test
	@$(BIN)/python -m pytest tests/integration

lint: venv-lint  ## ruff, mypy, ansible-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy plugins/module_utils
	$(BIN)/ansible-lint --offline --profile production

sanity: venv-lint  ## ansible-test sanity, in an environment of its own
	tools/sanity.sh

reference: venv-test  ## docs/reference, from what plugins, roles and playbooks say about themselves
	@$(BIN)/python tools/reference.py

bench: venv-test  ## Ratios, measured now on this machine
	@for bench in tests/benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

lab:  ## Real devices: six amd64 and one emulated arm64, as systemd containers (root)
	@python3 tests/lab/lab.py up

lab-down:  ## Remove the lab; its images stay in build/lab/images until make clean
	@python3 tests/lab/lab.py down

archive: venv-demo  ## The collection archive, in dist/
	$(BIN)/ansible-galaxy collection build --force --output-path dist

clean: demo-clean lab-down  ## Remove everything that these commands made
	rm -rf .venv .venvs .ansible build dist demo-out .pytest_cache .mypy_cache .ruff_cache tests/output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
