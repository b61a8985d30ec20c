# Everything is installed into .venv, and only what is missing.
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-out

# Two processes, each with one thread: the tests are many and small, and two cores share them better than any one test.
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n 2 --dist loadfile

.PHONY: demo test test-fast test-slow-list check clean

demo: $(VENV)/.installed
	$(VENV)/bin/labelmerge demo --out $(OUT)

test: $(VENV)/.installed
	$(VENV)/bin/python -m pip install -q -e ".[test]"
	$(PYTEST)

# While working: without the tests of tests/slow.txt, which take over a second each.
test-fast: $(VENV)/.installed
	$(VENV)/bin/python -m pip install -q -e ".[test]"
	$(PYTEST) -q -m "not slow"

# Run everything and write tests/slow.txt anew, on a machine that does nothing else.
test-slow-list: $(VENV)/.installed
	$(VENV)/bin/python -m pip install -q -e ".[test]"
	$(PYTEST) --measure-slow

check: $(VENV)/.installed
	$(VENV)/bin/python -m pip install -q -e ".[dev]"
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/oxlint --deny-warnings labelmerge

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "labelmerge needs Python 3.11 or newer; say which with: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -e ".[lite,offline]"
	touch $@

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info
