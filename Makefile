# `make demo` and `make test` set up everything they need in .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests run in this many processes at once.
WORKERS ?= auto
# PyTorch as pip should install it for the backends and the benchmarks, for example torch==2.13.0
TORCH ?= torch
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help demo test test-all test-long lint format wheel test-wheel test-backends test-lower-bounds test-goldens test-peers benchmark clean

help:
	@echo "make demo                train, evaluate and export the digits ViT, and ask the SavedModel"
	@echo "make test                run the tests (PYTEST_ARGS=... for pytest's options)"
	@echo "make test-all            run every test and write tests/results/test-all.json"
	@echo "make test-long           run those that make test leaves out for their time"
	@echo "make lint / make format  ruff, and the contracts on imports"
	@echo "make wheel               build the wheel; make test-wheel tries it in a clean environment"
	@echo "make test-backends       install JAX and PyTorch and run the model tests on them"
	@echo "make test-lower-bounds   install the oldest declared dependencies and run the tests"
	@echo "make test-goldens        compare with the golden cases in a folder: GOLDENS=DIR [OUT=DIR2]"
	@echo "make test-peers          full-size models and augmentation beside timm and transformers (installs them) [RECORD=FILE]"
	@echo "make benchmark           compare speed with KerasHub and timm (installs them)"

$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "keras_vit needs Python 3.11 or newer: make PYTHON=python3.12"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/keras_vit train recipes/vit_digits.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest --strict-skips -m 'not long' -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Everything that needs no further installation; peers and backends have targets of their own.
test-all: $(VENV)/.installed
	$(BIN)/python -m pytest --strict-skips -n $(WORKERS) --dist loadfile --no-loadscope-reorder --record=tests/results/test-all.json $(PYTEST_ARGS)

test-long: $(VENV)/.installed
	$(BIN)/python -m pytest --strict-skips -m long -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/ruff format --check .

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.installed
	rm -rf build dist
	$(BIN)/python -m build --outdir dist .

# Without PYTHON= the environment of the tests is used.
test-goldens: $(if $(filter file,$(origin PYTHON)),$(VENV)/.installed)
	$(if $(filter file,$(origin PYTHON)),$(BIN)/python,$(PYTHON)) tests/run_goldens.py $(or $(GOLDENS),tests/goldens) $(if $(OUT),--out $(OUT))

test-wheel: wheel
	rm -rf $(VENV)-wheel
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/pip install --quiet "$$(ls dist/*.whl)[data]"
	cd / && '$(abspath $(VENV)-wheel)/bin/keras_vit' train vit_digits --smoke --out "$$(mktemp -d)"

test-backends: $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)-backends
	$(VENV)-backends/bin/pip install --quiet --editable '.[test]' jax $(TORCH)
	for backend in tensorflow jax torch; do \
		KERAS_BACKEND=$$backend $(VENV)-backends/bin/python -m pytest -m backends tests/test_backends.py || exit 1; \
	done

# PyTorch's library must be loaded before TensorFlow's in one process: -p torch.
test-peers:
	$(PYTHON) -m venv $(VENV)-reference
	$(VENV)-reference/bin/pip install --quiet --editable '.[test]' $(TORCH) timm==1.0.31 transformers==4.57.6
	# Nor can triton's LLVM live beside TensorFlow's; on a CPU PyTorch does without it.
	$(VENV)-reference/bin/pip uninstall --quiet --yes triton
	PEERS_RECORD=$(RECORD) $(VENV)-reference/bin/python -m pytest -p torch -m peers tests/*/test_*_peers.py

test-lower-bounds:
	$(PYTHON) -m venv $(VENV)-lower
	$(VENV)-lower/bin/pip install --quiet --editable '.[test]' --constraint tests/lower_bounds.txt
	$(VENV)-lower/bin/python -m pytest -m 'not slow and not long' $(PYTEST_ARGS)

benchmark: $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/pip install --quiet --editable '.[serving,onnx,openvino]' keras-hub timm $(TORCH)
	$(VENV)-peers/bin/python benchmarks/train_step.py
	$(VENV)-peers/bin/python benchmarks/train_loop.py
	$(VENV)-peers/bin/python benchmarks/inference.py
	$(VENV)-peers/bin/python benchmarks/loading.py
	test -z "$(KERAS_VIT_DATA)" || $(VENV)-peers/bin/python benchmarks/serving.py

clean:
	rm -rf $(VENV) $(VENV)-* build dist *.egg-info runs
