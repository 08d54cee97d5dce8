# Two commands for a fresh machine: `make story` and `make test`. Both are safe to repeat.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The version of PyTorch to install. On x86-64, PyPI's plain wheel brings CUDA. README.md tells how to get the CPU build.
TORCH ?= torch==2.13.0

.PHONY: story test test-fast check pi-check sign-interop bundle web web-bench train-nano train-micro clean

story: .venv/export bundles/nano/manifest.json
	@$(BIN)/slmx generate "Once upon a time"
	@printf '\n%s\n%s\n%s\n%s\n' "Next you can type:" \
		'  $(BIN)/slmx generate "One day"' '  $(BIN)/slmx generate -i' '  $(BIN)/slmx --help' >&2

bundles/nano/manifest.json: .venv/export $(wildcard slm/pretrained/nano/*)
	$(BIN)/slmx export --preset nano --int8 --force

test: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not heavy and not browser and not pi"

# The tests without the slow ones, which train, export, measure or start many processes.
test-fast: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# The checks of .ci/run besides the tests.
check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Writes stories on emulated Raspberry Pis: the wheel of this tree, the aarch64 wheels of PyPI, and Debian's Python.
# It needs Debian's apt-get, and no root.
pi-check: .venv/dev
	$(BIN)/python -m benchmarks.pi

# Lets sigstore's model-signing and slmx verify each other's signatures. It needs an environment of its own.
sign-interop: .venv/dev
	test -x .venv/model-signing/bin/python || $(PYTHON) -m venv .venv/model-signing
	.venv/model-signing/bin/python -m pip install --quiet --disable-pip-version-check model-signing pyOpenSSL
	SLMX_MODEL_SIGNING=.venv/model-signing $(BIN)/python -m pytest tests/runtimes/pack/test_interop.py

# Makes the bundles inside the package again, from the checkpoints in slm/pretrained.
bundle: .venv/export
	$(BIN)/slmx export --preset nano --int8 --no-fp32 --out runtimes/bundles/nano --force
	$(BIN)/slmx export --preset micro --int8 --no-fp32 --out runtimes/bundles/micro --force

# Builds the files of the web page again, from runtimes/web/app/src. It needs Node.js 20 or newer, with npm.
web:
	cd runtimes/web/app && npm ci --ignore-scripts --no-audit --no-fund && npm run build

# Measures the page, the engine and its peers in Chromium, and takes the pictures of docs/browser.md. Nothing else should run.
web-bench: .venv/dev
	$(BIN)/python -m benchmarks.studies.browser --out docs/browser.json --pictures docs/browser

# Train the shipped models again (docs/training.md). TEXT and VALID are files of TinyStories; the first file of TEXT alone
# is what micro was trained on. On one core, each takes about two hours.
TEXT ?= tinystories-train.txt tinystories-train-2.txt tinystories-train-3.txt
VALID ?= tinystories-valid.txt
PREPARE := $(BIN)/slmx prepare --valid $(VALID) --no-clean --licence "TinyStories (Eldan & Li, 2023), CDLA-Sharing-1.0"
TRAIN := $(BIN)/slmx train --eval-every 1000

train-nano: .venv/dev
	$(PREPARE) $(TEXT) --preset nano --out data/nano
	$(TRAIN) --preset nano --arch llama --text data/nano --steps 20000 --out runs/nano

train-micro: .venv/dev
	$(PREPARE) $(firstword $(TEXT)) --preset micro --out data/micro
	$(TRAIN) --preset micro --text data/micro --steps 6000 --out runs/micro-first
	$(TRAIN) --init runs/micro-first --text data/micro --learning-rate 1e-3 --steps 1400 --seed 2 --eval-every 500 \
		--out runs/micro-second
	$(BIN)/slmx average runs/micro-first runs/micro-second --text data/micro --out runs/micro

.venv/export: .venv/torch
	$(PIP) --editable ".[export]"
	@touch $@

.venv/dev: .venv/torch
	$(PIP) --editable ".[dev]"
	@touch $@ .venv/export

.venv/torch: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) "$(TORCH)"
	@touch $@

clean:
	rm -rf .venv bundles build dist *.egg-info
