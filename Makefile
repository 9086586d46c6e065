# make run    installs everything, makes demo data, and trains and evaluates a demo model
# make test   installs everything the tests need, then runs the tests
# make test-all  then installs Ray, JAX and the export formats, and runs the tests that need them
# make app    installs the app's packages alone, then opens the app; MODEL=models/run offers that model first
# make lint   runs the checks that CI runs
# make clean  deletes the environment and caches, never data/ or models/
# The README lists the same steps without make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif

.PHONY: run test test-all app lint clean system-packages
.DEFAULT_GOAL := run

run: $(VENV)/.installed
	$(BIN)/python RunPipeline.py --demo

test: $(VENV)/.installed-dev system-packages
	$(BIN)/python -m pytest -n 2 --dist worksteal

# An import that fails here would only skip tests there.
test-all: $(VENV)/.installed-all system-packages
	$(BIN)/python -c "import ai_edge_litert, jax, onnxruntime, ray, tf2onnx, torch"
	$(BIN)/python -m pytest -m optional

app: $(VENV)/.installed-app
	$(BIN)/python -m streamlit run App.py $(if $(MODEL),-- --model $(MODEL))

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Graphviz draws the network and Chromium runs the browser tests. Only root with apt-get can install
# them here; otherwise pytest skips the tests that need them and says so.
system-packages:
	@if command -v dot >/dev/null && command -v chromium >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
			--no-install-recommends graphviz chromium >/dev/null; \
	else echo "Graphviz or Chromium is missing: the tests that need them will be skipped."; fi

# There is one environment: `make app` installs the app's packages, `make run` adds the rest.
$(VENV)/.installed-app: requirements-app.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-app.txt
	@touch $@

$(VENV)/.installed: requirements.txt requirements-app.txt pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(VENV)/.installed-app $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

$(VENV)/.installed-all: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,ray,jax,export]"
	@touch $@
