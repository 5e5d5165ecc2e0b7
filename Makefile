# Each target sets itself up: on a fresh machine with Python 3.11+, its headers, a C compiler and make, `make demo` or `make test` is all it
# takes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
KERNEL := $(wildcard kernels/build_*.py kernels/header.py kernels/*.h kernels/cpu/* kernels/cuda/* kernels/node/* kernels/ops/build_node.py)

.PHONY: setup demo test bench gpu screenshots lint clean

setup: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt $(KERNEL)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "CatVAE needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cpu,train,test,bench]'
	@$(BIN)/python -P -m catvae.kernels.ops.build_node
	@touch $(STAMP)
	@echo "kernel: $$($(BIN)/python -P -c 'from catvae.kernels import kernel_status; print(kernel_status())')"
	@echo "installed in $(VENV): 'source $(BIN)/activate' puts the catvae-* commands on the path"

demo: setup
	$(BIN)/python demo.py

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/typecheck/catvae
	for room in core kernels export runtime; do ln -sfn ../../../$$room build/typecheck/catvae/$$room; done
	$(BIN)/pyright

bench: setup
	$(BIN)/python -m benchmarks.kernel
	$(BIN)/python -m benchmarks.kernel_sweeps
	$(BIN)/python -m benchmarks.step
	$(BIN)/python -m benchmarks.layers
	$(BIN)/python -m benchmarks.plots

gpu: setup
	$(BIN)/python -m pytest tests/kernels
	PYTORCH_NO_CUDA_MEMORY_CACHING=1 PATH="$$PATH:/usr/local/cuda/bin" compute-sanitizer --error-exitcode 1 \
		$(BIN)/python -m pytest tests/kernels -k "cuda and not graph and not emulated and not layer_before"
	$(BIN)/python -m benchmarks.kernel --device cuda --name kernel-cuda

screenshots: setup
	$(BIN)/python docs/screenshots.py $(or $(MNIST),mnist)

clean:
	rm -rf build dist *.egg-info kernels/*.so kernels/_cpu.c $(VENV) runs/demo
