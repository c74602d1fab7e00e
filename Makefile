# `make demo` decodes real prompts, `make test` runs the tests; each sets up what it needs in .venv first.
PYTHON ?= python3
# Where pip looks for torch besides its usual index. On Linux PyPI's torch brings gigabytes of CUDA libraries; PyTorch's own CPU index does not.
TORCH_INDEX ?=
CPU_INDEX := https://download.pytorch.org/whl/cpu
BIN := .venv/bin
STAMP := .venv/.ready
STUB := src/hoarfrost/_native.pyi
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: setup demo test test-all check stubs format bench clean

setup: $(STAMP)

# The package is installed in place: Python changes count at once, a change of the C++ sources or of the pins sets up again.
$(STAMP): constraints.txt pyproject.toml CMakeLists.txt $(wildcard native/*/*)
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "hoarfrost needs Python 3.11 to 3.13; call make PYTHON=python3.12")'
	@echo "Setting up .venv; torch comes from $(if $(TORCH_INDEX),$(TORCH_INDEX) or )pip's own index."
	$(if $(TORCH_INDEX),,@echo "On Linux that may be a CUDA build, of several gigabytes; make TORCH_INDEX=$(CPU_INDEX) takes the CPU build, of less than one.")
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install --quiet -c constraints.txt scikit-build-core nanobind cmake ninja
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[plot,dev]'
	touch $@

demo: setup
	$(BIN)/hoarfrost demo

test: setup
	$(BIN)/python -m pytest

# Everything under every instruction set of this processor, with one thread and with two.
test-all: setup
	set -e; names=$$($(BIN)/python -c 'from hoarfrost.kernels import instruction_sets; print(*instruction_sets())'); \
	for name in $$names; do for num_threads in 1 2; do \
		echo "Instruction set $$name, threads: $$num_threads"; \
		HOARFROST_INSTRUCTION_SET=$$name OMP_NUM_THREADS=$$num_threads $(BIN)/python -m pytest; \
	done; done

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(call write_stub,build/_native.pyi)
	@diff $(STUB) build/_native.pyi || { echo "$(STUB) is not what the compiled module says; run 'make stubs' and commit it."; exit 1; }
	$(BIN)/mypy

# The types of the compiled module, from the module itself.
stubs: setup
	$(call write_stub,$(STUB))

define write_stub
	mkdir -p $(dir $(1))
	$(BIN)/python -m nanobind.stubgen --quiet -m hoarfrost._native -o $(1)
	$(BIN)/ruff format --quiet $(1)
endef

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Needs the prompt sets: a folder with them in HOARFROST_DATA, or the Hugging Face hub.
bench: setup
	$(BIN)/hoarfrost bench decode smollm2 --sets gsm8k,math500,humaneval,mt_bench --temperature 0 --json build/bench.json

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
