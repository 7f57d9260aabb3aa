# Each target creates what it needs: on a fresh machine `make demo` and `make test` work with nothing else done first.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.14.1 torchvision==0.29.1

BIN := $(VENV)/bin
NATIVE := $(shell find csrc -type f)
SOURCES := adsq kernels bench tests setup.py

.PHONY: install demo test test-native test-native-arm bench bench-peers bench-losses bench-scale bench-gpu study lint format clean

install: $(VENV)/.installed

$(VENV)/.tools:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77" wheel ninja
	touch $@

$(VENV)/.torch: $(VENV)/.tools
	$(BIN)/python -m pip install --quiet $(TORCH)
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml setup.py $(NATIVE)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[test,lint]"
	touch $@

$(VENV)/.peers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[bench]"
	touch $@

demo: install
	$(BIN)/adsq demo --out runs/demo

test: install
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

# The CPU kernels alone, with sanitizers
test-native: $(VENV)/.tools
	$(BIN)/python tests/native/run.py

# The same for 64-bit Arm, in an emulator, where a cross compiler and qemu are installed
test-native-arm: $(VENV)/.tools
	$(BIN)/python tests/native/run.py --arm

bench: install
	$(BIN)/python -m pytest bench --benchmark-only --benchmark-group-by=func,param:case --benchmark-columns=median,iqr,rounds

# The table of README.md and docs/peers.png; PEERS="--threads 2" measures with two threads.
bench-peers: $(VENV)/.peers
	$(BIN)/python bench/peers.py --data $(PEERS)

# The tables of kernels/pairwise_similarity/README.md and kernels/sign_quantization/README.md
bench-losses: install
	$(BIN)/python bench/losses.py $(LOSSES)

# The tables of kernels/hamming_hash/README.md and docs/scale.png: ways of an index to search, 10,000 to 100,000,000 codes.
bench-scale: $(VENV)/.peers
	$(BIN)/python bench/bench_scale.py $(SCALE)

# bench/results/gpu-<device>.md. Builds for the GPU of this machine into PYTHON, which has torch; downloads nothing.
# GPU="--only codes --no-compile" measures a part; bench/gpu.py --help tells more.
bench-gpu:
	$(PYTHON) bench/gpu_run.py $(GPU)

# make study ROOT=folder of the Fashion-MNIST idx files: tables and figures of bench/study/README.md. Takes a few hours and
# goes on where it stopped; STUDY="--bits 32 --methods adsq greedyhash" runs a part, STUDY="--quick FOLDER" a trial.
study: $(VENV)/.peers
	PYTHONPATH=bench $(BIN)/python bench/study/study.py --root "$(ROOT)" $(STUDY)

lint: install
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/clang-format --dry-run --Werror $(NATIVE) $(shell find tests -name '*.h' -o -name '*.cpp' -o -name '*.cuh')
	$(BIN)/python setup.py --quiet build_py --build-lib build/lint
	cd build/lint && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml

format: install
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/clang-format -i $(NATIVE) $(shell find tests -name '*.h' -o -name '*.cpp' -o -name '*.cuh')

clean:
	rm -rf build dist $(VENV) *.egg-info kernels/*.so kernels/_build.json
