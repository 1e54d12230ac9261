# make demo   trains on built-in synthetic faces and writes demo/report.html
# make test   lint, types and tests, these in as many processes as there are cores
# make test-other-cpu  the numerical tests once more, with the kernels that another processor would take
# make docs   builds the documentation into site/, which fetches nothing from elsewhere; warnings are errors
# make reference  writes docs/cli.md and docs/python.md anew from the program
# All create .venv when it is missing.
# make bench  creates .venv-bench, which holds the libraries that benchmarks/ compare with

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
NUMERICAL := $(addprefix tests/,attacks backbones evaluation heads recognizers recognition training \
	test_clustering.py)
# One thread in each process. Stealing leaves most of a file's tests in one process, which makes its fixtures once.
# Bytecode is kept, whatever the caller's habit: dozens of processes would compile package and tests anew.
# Temporary files in memory where that has room: a test that waits for a disk leaves its core idle.
IN_MEMORY := $(shell df -Pk /dev/shm 2> /dev/null | awk 'NR == 2 && $$4 > 4194304 { print "PYTEST_DEBUG_TEMPROOT=/dev/shm" }')
PARALLEL := $(IN_MEMORY) PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal
# Slow, or about files and resuming rather than numbers.
OTHERS := killed or Evolutionary or HopSkipJump or more_queries or moves_the_cosine or test_export or test_filekinds \
	or test_filling or test_layouts or test_loop or test_parts or test_reading or test_recipe or test_weights

.PHONY: setup demo test test-other-cpu docs reference bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/steadface demo --out demo

# mypy takes one core for a minute where it has not run before: it does so beside the tests, and has the last word.
test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@said=$$(mktemp) && { $(BIN)/mypy > "$$said" 2>&1 & types=$$!; \
	trap 'kill $$types 2> /dev/null; rm -f "$$said"' EXIT; trap 'exit 130' INT TERM; \
	$(PARALLEL); failed=$$?; wait $$types || failed=$$?; cat "$$said"; exit $$failed; }

# Nothing wider than SSE in torch (ATen, oneDNN, MKL) and in numpy (OpenBLAS): sums come in another order everywhere.
test-other-cpu: export ATEN_CPU_CAPABILITY = default
test-other-cpu: export ONEDNN_MAX_CPU_ISA = SSE41
test-other-cpu: export MKL_CBWR = COMPATIBLE
test-other-cpu: export OPENBLAS_CORETYPE = Nehalem
test-other-cpu: setup
	$(PARALLEL) $(NUMERICAL) -k 'not ($(OTHERS))'

docs: $(VENV)/.docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	! grep -rE '<(script|link|img|iframe|source)[^>]*(src|href)="?(https?:)?//' site --include='*.html'
	! grep -rE '(@import|url\()[^;)]*//' site --include='*.css'

$(VENV)/.docs-ready: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

reference: setup
	$(BIN)/python docs/reference.py

bench: $(BENCH)/.ready

# torchattacks asks for torchvision and an old requests, and imports neither.
$(BENCH)/.ready: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --editable . --requirement benchmarks/requirements.txt
	$(BENCH)/bin/python -m pip install --quiet --no-deps torchattacks==3.5.1
	touch $@

clean:
	rm -rf $(VENV) $(BENCH) demo site
