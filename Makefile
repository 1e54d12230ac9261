# make demo   trains on built-in synthetic faces and writes demo/report.html
# make test   lint, types and tests
# make test-other-cpu  the numerical tests once more, with the kernels that another processor would take
# Both create .venv when it is missing.
# make bench  creates .venv-bench, which holds the libraries that benchmarks/ compare with

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
NUMERICAL := $(addprefix tests/,attacks audit backbones evaluation models recognition training \
	test_heads.py test_likeness.py test_margins.py)
QUICK := not killed and not Evolutionary and not HopSkipJump and not more_queries

.PHONY: setup demo test test-other-cpu bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/steadface demo --out demo

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

# Nothing wider than SSE in torch (ATen, oneDNN, MKL) and in numpy (OpenBLAS): sums come in another order everywhere.
test-other-cpu: export ATEN_CPU_CAPABILITY = default
test-other-cpu: export ONEDNN_MAX_CPU_ISA = SSE41
test-other-cpu: export MKL_CBWR = COMPATIBLE
test-other-cpu: export OPENBLAS_CORETYPE = Nehalem
test-other-cpu: setup
	$(BIN)/pytest $(NUMERICAL) -k '$(QUICK)'

bench: $(BENCH)/.ready

# torchattacks asks for torchvision and an old requests, and imports neither.
$(BENCH)/.ready: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --editable . --requirement benchmarks/requirements.txt
	$(BENCH)/bin/python -m pip install --quiet --no-deps torchattacks==3.5.1
	touch $@

clean:
	rm -rf $(VENV) $(BENCH) demo
