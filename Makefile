# The two commands of the README. Everything is installed into .venv, and only what is missing.
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-out

.PHONY: demo test check clean

demo: $(VENV)/.installed
	$(VENV)/bin/labelmerge demo --out $(OUT)

test: $(VENV)/.installed
	$(VENV)/bin/python -m pip install -q -e ".[test]"
	$(VENV)/bin/pytest

check: $(VENV)/.installed
	$(VENV)/bin/python -m pip install -q -e ".[dev]"
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/oxlint --deny-warnings labelmerge

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "labelmerge needs Python 3.11 or newer; say which with: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -e ".[offline]"
	touch $@

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info
