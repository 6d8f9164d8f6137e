# The handful of commands people type. `make demo` and `make test` need nothing but Python 3.11+.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
OUT := out

.PHONY: help demo test check lint types bench clean

help:
	@echo "make demo    environment, install, a solver comparison on handwritten digits, plots"
	@echo "make test    environment, install, tests"
	@echo "make check   lint, types, tests"
	@echo "make bench   benchmarks beside other libraries, as ratios"
	@echo "make clean   remove the environment and outputs"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.installed
	$(PIP) -e ".[dev]"
	$(PIP) --no-deps k-diffusion azula  # they ask for torchvision, which their samplers do not use
	@touch $@

demo: $(VENV)/.installed
	@mkdir -p $(OUT)
	$(BIN)/python studies/step_counts.py --certify --workers 2 --store $(OUT)/step_counts.sqlite \
		--plots $(OUT)/step_counts

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy labcore plugins studies benchmarks

check: lint types test

bench: $(VENV)/.installed-dev
	missed=0; for script in overhead scores metrics study training; do \
		$(BIN)/python benchmarks/$$script.py || missed=1; done; exit $$missed

clean:
	rm -rf $(VENV) $(OUT)
