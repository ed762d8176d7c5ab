# `make` lists the targets. They need only make and Python 3.11 or newer, and create .venv themselves.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' pyproject.toml

ARGS ?=
TASKS ?= 1000
SEED ?= 1
JSON ?=
MINERS ?= 10000
MINUTES ?=

OF_COMFYUI = $(if $(COMFYUI_HOME),--comfyui-home $(COMFYUI_HOME)) $(if $(COMFYUI_PYTHON),--comfyui-python $(COMFYUI_PYTHON)) \
	$(if $(MODELS),--models $(MODELS))

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench chaos soak fuzz fuzz-pictures fleet parity contract image-check lock dist clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: .venv/.base ## send pictures through devnet, a worker and the embedded engine (ARGS='--image FILE')
	@$(BIN)/xalora-miner demo $(ARGS)

test: .venv/.test ## run the tests (ARGS='-k name')
	@$(BIN)/python -m pytest --numprocesses 4 --dist worksteal $(ARGS)

lint: .venv/.test ## check style, formatting, types and import layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: .venv/.test ## measure startup, memory, throughput and CPU; write bench.json (COMFYUI_URL=…: throughput on that)
	@COMFYUI_URL="$(COMFYUI_URL)" $(BIN)/python -m tests.campaigns.bench $(ARGS)

chaos: .venv/.test ## inject random faults and judge what became of each task (TASKS=1000 SEED=1 COMFYUI_HOME=…)
	@$(BIN)/python -m tests.campaigns.chaos --tasks $(TASKS) --seed $(SEED) $(if $(JSON),--json $(JSON)) $(OF_COMFYUI) $(ARGS)

soak: .venv/.test ## keep the miner at full speed and see what grows (MINUTES=60 COMFYUI_HOME=…)
	@$(BIN)/python -m tests.campaigns.soak --minutes $(or $(MINUTES),60) $(if $(JSON),--json $(JSON)) $(OF_COMFYUI) $(ARGS)

fuzz: .venv/.test ## send arbitrary JSON as tasks and replies (MINUTES=5)
	@$(BIN)/python -m tests.campaigns.fuzz --minutes $(or $(MINUTES),5)

fuzz-pictures: .venv/.test ## decode mutated pictures and print what they cost (ARGS='--count 400 --files FOLDER')
	@$(BIN)/python -m tests.campaigns.fuzz.pictures $(ARGS)

fleet: .venv/.test ## simulate a fleet on one sequencer (MINERS=10000)
	@$(BIN)/python -m tests.campaigns.fleet --miners $(MINERS)

parity: .venv/.test ## run the network's Node SDK and older miner through devnet (NODE_SDK=… OLDER_MINER=… OLDER_PYTHON=… COMFYUI_URL='…')
	@$(BIN)/python -m tests.campaigns.parity $(if $(NODE_SDK),--node-sdk $(NODE_SDK)) $(foreach path,$(OLDER_MINER),--older-miner $(path)) \
		$(if $(OLDER_PYTHON),--older-python $(OLDER_PYTHON)) $(foreach url,$(COMFYUI_URL),--comfyui-url $(url)) $(ARGS)

contract: .venv/.test ## run the contract tests against a real ComfyUI (COMFYUI_URL=http://127.0.0.1:8188)
	@test -n "$(COMFYUI_URL)" || { echo 'make contract: set COMFYUI_URL: make contract COMFYUI_URL=http://127.0.0.1:8188' >&2; exit 2; }
	@COMFYUI_URL="$(COMFYUI_URL)" $(BIN)/python -m pytest tests/contract $(ARGS)

image-check: .venv/.test ## build the image with buildah and run a task in it (variables: tests/system/shipping/image.py)
	@$(BIN)/python -m tests.system.shipping.image

lock: .venv/.base ## update the lock files from pyproject.toml
	@$(PIP) 'uv>=0.9,<1'
	@$(LOCK) --output-file requirements.lock
	@$(LOCK) --extra test --constraints requirements.lock --output-file requirements-test.lock

dist: .venv/.base ## build the wheel and the sdist into dist/
	@$(PIP) 'build>=1.3,<2'
	@$(BIN)/python -m build --quiet

clean: ## remove build outputs and caches
	@rm -rf .venv build dist demo-output bench.json .coverage .hypothesis .*_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo 'make: $(PYTHON) not found: install Python 3.11 or newer, or choose one: make PYTHON=python3.12 …' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old: choose 3.11 or newer: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'make: $(PYTHON) cannot create .venv: sudo apt install python3-venv (Debian, Ubuntu)' >&2; exit 1; }
	@echo 'creating .venv (once)' >&2
	@$(PYTHON) -m venv .venv

# Two stamps: the demo needs only the miner's own dependencies.
.venv/.base: requirements.lock pyproject.toml | $(BIN)/python
	@$(PIP) --require-hashes --requirement requirements.lock
	@$(PIP) --no-deps --editable .
	@touch $@

.venv/.test: requirements-test.lock .venv/.base
	@$(PIP) --require-hashes --requirement requirements-test.lock
	@touch $@
