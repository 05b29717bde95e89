# Each target is a thin name for a script under tools/. Variables: PYTHON=, JOBS=, ONCE=1, PORT=, PROMPT=, ARGS=, NAME=.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test test-all check engines vllm vulkan clients peers tmux registry prometheus charts podman vision browser chaos fuzz soak bench lock setup setup-dev clean
BIN := .venv/bin
# Tests mostly wait for processes: four at a time take two thirds of what two take on two cores. Fuzzers compute.
JOBS := 4
FUZZERS := 2
KILLS := 200
FAULTS := 500
SEED := 0
MINUTES := 30
RECORD :=
RUNS := 1000000
SECONDS := 1800
# Compiled modules are kept even where a container's environment says not to (an empty value counts as none): without
# them every start of Corral, and there are hundreds in the tests, compiles all of its modules again.
export PYTHONDONTWRITEBYTECODE :=
FIND_PYTHON := PYTHON="$(PYTHON)" tools/find-python

help:
	@echo "make run        start Corral with its demo model and ask it something (ONCE=1: then end)"
	@echo "make test       the core tests: everything that needs only Python packages (ARGS= for pytest)"
	@echo "make test-all   the same and every tier but chaos; makes what they need: built engines, a registry, Podman, vLLM (some GB)"
	@echo "make check      ruff, mypy, import-linter, the documentation's checks"
	@echo "make engines    build llama-server into the user's cache directory, once"
	@echo "make vulkan     the same with a Vulkan backend, and Mesa's lavapipe as its device (Debian, as root)"
	@echo "make vllm       install vLLM for the processor into an environment of its own in the cache directory, once (3.4 GB)"
	@echo "make clients    install LiteLLM and the JavaScript clients that tests use into the cache directory (wants Node.js)"
	@echo "make peers      install other gateways that \`make bench NAME=gateway\` measures beside Corral"
	@echo "make tmux       install tmux, in which tests type into \`corral top\` (Debian, as root)"
	@echo "make registry   install docker-registry and skopeo for the tests (Debian, as root)"
	@echo "make prometheus unpack Debian's Prometheus and promtool into the cache directory, for the tests of rules and dashboards"
	@echo "make charts     draw the charts of docs/operate.md anew from a Prometheus that scrapes a Corral under load"
	@echo "make podman     rootless Podman for the tests: its packages, a user, images made here (Debian, as root; VLLM=1: vLLM's too)"
	@echo "make vision     install torch and transformers, which the detector is compared with, and what Corral exports with,"
	@echo "                into the cache directory"
	@echo "make browser    Chromium (Debian, as root), Playwright, and llama.cpp's web page built with npm, for the tests of pages"
	@echo "make chaos      KILLS=200 pulls killed at random moments, then FAULTS=500 of all kinds under many requests: up to"
	@echo "                MINUTES=30; SEED= tries the same ones again, RECORD=1 writes docs/chaos.md"
	@echo "make fuzz       RUNS=1000000 executions of the fuzzer's targets, within SECONDS=1800 (Linux on x86-64; ARGS= names some)"
	@echo "make soak       SECONDS=1800 of mixed traffic in every dialect; RECORD=1 writes docs/soak.md"
	@echo "make bench      NAME=first_token ARGS=\"--quick --json FILE\""
	@echo "make lock       write the hashed requirements again from pyproject.toml (ARGS=--upgrade)"
	@echo "make clean      remove the environment and everything made here"

setup:
	@python=$$($(FIND_PYTHON)) && "$$python" tools/setup_env.py run

setup-dev:
	@python=$$($(FIND_PYTHON)) && "$$python" tools/setup_env.py dev

run: setup
	@ONCE="$(ONCE)" PORT="$(PORT)" PROMPT="$(PROMPT)" $(BIN)/python tools/run_demo.py

test: setup-dev
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-all: setup-dev engines registry
	@$(MAKE) --no-print-directory prometheus || echo "the tests that need Prometheus will be skipped" >&2
	@$(MAKE) --no-print-directory podman || echo "the tests that need Podman will be skipped" >&2
	@$(MAKE) --no-print-directory vulkan || echo "the tests that need Vulkan will be skipped" >&2
	@$(MAKE) --no-print-directory vllm || echo "the tests that need vLLM will be skipped" >&2
	@$(MAKE) --no-print-directory vision || echo "the tests that need torch and transformers will be skipped" >&2
	@$(MAKE) --no-print-directory browser || echo "the tests in a browser will be skipped" >&2
	@$(MAKE) --no-print-directory clients || echo "the tests with JavaScript clients and LiteLLM will be skipped" >&2
	@$(MAKE) --no-print-directory tmux || echo "the tests that type into corral top in tmux will be skipped" >&2
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not chaos" $(ARGS)

check: setup-dev
	@$(BIN)/python tools/check.py

engines: setup-dev
	@$(BIN)/python tools/build_engines.py

vllm: setup-dev
	@$(BIN)/python tools/install_vllm.py

vulkan: setup-dev
	@$(BIN)/python tools/build_engines.py --variant vulkan

clients: setup-dev
	@$(BIN)/python -m tools.install_clients

peers: setup-dev
	@$(BIN)/python tools/install_peers.py

tmux:
	@tools/install-tmux

registry:
	@tools/install-registry

charts: setup-dev prometheus engines
	@CORRAL_TEST_CHARTS=docs/charts $(BIN)/python -m pytest -s -m "" tests/deploy/test_live.py -k data $(ARGS)

prometheus: setup-dev
	@$(BIN)/python tools/install_prometheus.py

podman: setup-dev
	@$(BIN)/python -m tools.install_podman

vision: setup-dev
	@$(BIN)/python tools/install_vision.py

browser: setup-dev engines
	@$(BIN)/python -m tools.install_browser

chaos: setup-dev
	@CORRAL_TEST_KILLS=$(KILLS) CORRAL_TEST_FAULTS=$(FAULTS) CORRAL_TEST_MINUTES=$(MINUTES) CORRAL_TEST_SEED=$(SEED) \
		CORRAL_TEST_RECORD=$(RECORD) $(BIN)/python -m pytest -s -m "" tests/models/test_killed_pull.py tests/chaos $(ARGS)

fuzz: setup-dev
	@$(BIN)/python tools/fuzz.py --runs $(RUNS) --seconds $(SECONDS) --jobs $(FUZZERS) $(ARGS)

soak: setup-dev
	@CORRAL_TEST_SECONDS=$(SECONDS) CORRAL_TEST_SEED=$(SEED) CORRAL_TEST_RECORD=$(RECORD) \
		$(BIN)/python -m pytest -s -m "" tests/soak $(ARGS)

bench: setup-dev
	@test -n "$(NAME)" || { echo "usage: make bench NAME=first_token ARGS=\"--quick --json FILE\"" >&2; exit 2; }
	@$(BIN)/python -m bench.$(NAME) $(ARGS)

lock:
	@python=$$($(FIND_PYTHON)) && "$$python" -m tools.lock $(ARGS)

clean:
	rm -rf .venv build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find src tests bench tools -name __pycache__ -type d -prune -exec rm -rf {} +
