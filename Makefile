# What a person types. `make train` and `make test` do all the set-up themselves.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
# Compilers at a time, in `make cpp-test`; nproc knows of taskset.
JOBS = $(or $(MAX_JOBS),$(shell nproc))
# Threads that spin while they wait starve each other where cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help env build train test lint format cuda-check cpp-test mutate sdist-test bench bench-quick gpu profile \
        clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Byte-compiling all that torch brings takes longer than the modules that are used do when they are.
env: export PIP_NO_COMPILE := 1
# torch first: anything that depends on torch would otherwise choose its own build of it.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check "setuptools>=77" wheel ninja "pybind11>=2.12" numpy
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation -e ".[all]"
	touch $@

env: $(VENV)/.ready  ## make the virtual environment and install the package in place

build: env  ## compile what changed
	$(BIN)/python setup.py --quiet build_ext --inplace

train: build  ## train on the digits that ship with scikit-learn, evaluate, draw samples
	$(BIN)/dvae-ext train dvae --data digits

# Two processes: most tests keep one core busy.
test: build  ## the test suite, long proofs apart; all of CI is .ci/run
	$(BIN)/python -m pytest -n 2 -m "not slow"

lint: env  ## formatting, style and types of Python and C++
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format --dry-run -Werror

format: env  ## apply the formatters
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .
	find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format -i

cuda-check: env  ## compile every CUDA kernel for sm_80, 90 and 100; print registers and spills
	$(BIN)/python tools/cuda_check.py

cpp-test:  ## the torch-free library and its C++ tests
	cmake -S . -B build/cmake -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1
	cmake --build build/cmake -j $(JOBS)
	ctest --test-dir build/cmake -j $(JOBS) --output-on-failure

mutate: build  ## remove each barrier of the CUDA kernels in turn: the kernels' tests have to notice
	$(BIN)/python tools/mutate_barriers.py

sdist-test: env  ## build the source distribution, install it elsewhere, import it
	$(BIN)/python tools/sdist_test.py

bench: build  ## measure every op, its scaling and the peers (15 minutes); writes bench/results, README, docs
	$(BIN)/python -m bench.collect
	$(BIN)/python tools/measured.py

bench-quick: build  ## one size of every op against eager PyTorch (2 minutes)
	$(BIN)/dvae-ext bench --quick

gpu:  ## on a CUDA machine: build, test, compare, sanitize, measure (8 minutes); make gpu STAGE=bench runs one stage
	$(PYTHON) -m bench.gpu $(STAGE)

profile:  ## where an op spends its time: make profile OP=rbm_gibbs_
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m bench.profile $(OP)

clean:  ## remove what builds leave behind
	rm -rf build dist dvae_ext/*.so *.egg-info .pytest_cache .ruff_cache .mypy_cache
