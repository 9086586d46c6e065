# make run    fresh machine → environment, demo data, a trained demo model, how to open the app
# make test   fresh machine → everything the tests need, then the tests
# make app    fresh machine → the packages of the app alone, then the app on the newest finished model
# make lint   the checks that CI runs
# make clean  removes the environment and caches; never data/ or models/
# The README has the same steps for people without make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif

.PHONY: run test app lint clean system-packages
.DEFAULT_GOAL := run

run: $(VENV)/.installed
	$(BIN)/python RunPipeline.py --demo
	@echo
	@echo "Open the app on the result with:  make app"
	@echo "without make:                     $(BIN)/python -m streamlit run App.py"

test: $(VENV)/.installed-dev system-packages
	$(BIN)/python -m pytest

app: $(VENV)/.installed-app
	$(BIN)/python -m streamlit run App.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Graphviz draws the network and Chromium runs the browser tests. Only a superuser with apt-get
# gets them installed here; for everybody else the tests that need them are skipped, visibly.
system-packages:
	@if command -v dot >/dev/null && command -v chromium >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
			--no-install-recommends graphviz chromium >/dev/null; \
	else echo "Graphviz or Chromium is missing: the tests that need them will be skipped."; fi

# One environment: the app's packages are a part of it, which `make app` installs alone and
# `make run` completes.
$(VENV)/.installed-app: requirements-app.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-app.txt
	@touch $@

$(VENV)/.installed: requirements.txt requirements-app.txt requirements-training.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(VENV)/.installed-app $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-api.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
