# Every target sets up all that it needs, in an environment of its own (.venv); a second run finds it ready.
#
#   make run ARGS="--port 8000"      make PYTHON=/opt/python3.12/bin/python3 test
#   make run PIP_ARGS="..."          more arguments for every `pip install`: another index, a folder of wheels

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV ?= .venv
ARGS ?=
PIP_ARGS ?=
# One torch thread per test worker; more only get in each other's way. One worker more than processors, up to four: tests
# wait for servers and browsers now and then.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); [ $$n -ge 4 ] && echo 4 || echo $$((n + 1)))
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n $(WORKERS) --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help install run test test-all all-tests lint style types format examples stress-load stress-kill stress-hostile stress-start stress-neighbours stress-cluster clean

help:
	@echo "make run         the page at http://127.0.0.1:7860 (flags: ARGS=\"...\")"
	@echo "make install     the environment alone"
	@echo "make test        quick tests, a few minutes on two cores"
	@echo "make test-all    linters, types, all tests: browser, servers, longer runs"
	@echo "make lint        linters and types only"
	@echo "make format      format the code and apply the linter's safe fixes"
	@echo "make examples    write assets/examples and the README's strip again"
	@echo "make stress-load, stress-kill, stress-hostile, stress-start, stress-neighbours, stress-cluster"
	@echo "                 a server under load, kill and attack, for minutes each (see docs/memory-and-speed.md)"
	@echo "make clean       remove the environment and caches (never outputs/)"

install: $(VENV)/ready

run: $(VENV)/ready
	$(VENV)/bin/python app.py $(ARGS)

test: $(VENV)/ready-dev
	$(PYTEST) -m "not slow" $(ARGS)

# mypy runs beside the tests, which leave a processor idle now and then.
test-all: style
	@$(MAKE) --no-print-directory --jobs=2 types all-tests

all-tests: $(VENV)/ready-dev
	$(PYTEST) $(ARGS)

lint: style types

style: $(VENV)/ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@if [ -x $(VENV)/bin/hadolint ]; then echo $(VENV)/bin/hadolint Dockerfile deploy/ray/Dockerfile; $(VENV)/bin/hadolint Dockerfile deploy/ray/Dockerfile; fi

types: $(VENV)/ready-dev
	$(VENV)/bin/mypy

format: $(VENV)/ready-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

examples: $(VENV)/ready-dev
	$(VENV)/bin/python -m tools.examples.draw_styles
	$(VENV)/bin/python -m tools.examples.example_photos
	$(VENV)/bin/python -m tools.examples.drawn_examples
	$(VENV)/bin/python -m tools.examples.drawn_results
	$(VENV)/bin/python -m tools.examples.ways_of_use

stress-load: $(VENV)/ready-dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tools.stress.load $(ARGS)

stress-kill: $(VENV)/ready-dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tools.stress.kill $(ARGS)

stress-hostile: $(VENV)/ready-dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tools.stress.hostile $(ARGS)

stress-start: $(VENV)/ready-dev
	$(VENV)/bin/python -m tools.stress.start $(ARGS)

stress-neighbours: $(VENV)/ready-dev
	$(VENV)/bin/python -m tools.stress.neighbours $(ARGS)

stress-cluster: $(VENV)/ready-dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tools.stress.cluster $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: newer than the requirements they were made from. torch goes first and alone, so that nothing else that is
# installed chooses another one.
$(VENV)/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "USO needs Python 3.11 or newer. Name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make environments. On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install $(PIP_ARGS) "$$(grep '^torch==' requirements.txt)"
	$(VENV)/bin/pip install $(PIP_ARGS) -r requirements.txt
	@touch $@

$(VENV)/ready-dev: requirements-dev.txt requirements-train.txt requirements-evaluate.txt requirements-ray.txt $(VENV)/ready
	$(VENV)/bin/pip install $(PIP_ARGS) -r requirements-dev.txt
	@touch $@
