# Set-up, tests and notebooks of explainlib. Every target prepares what it needs; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SITE_STAMP := $(VENV)/.site
PEERS := .venv-peers
LEARN2LEARN := learn2learn==0.2.0
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

# What explainlib is tested with. make env PYTHON=/path/to/python3.12 chooses the interpreter; otherwise it is the first
# of these on the PATH that can make virtual environments.
PYTHON_VERSIONS := 3.11 3.12 3.13
PYTHON ?=
# learn2learn is compiled. Everything else works without it, so a build that fails is told and no error.
WITHOUT_LEARN2LEARN = $(LEARN2LEARN) did not build (it needs gcc and the headers of Python; see $(VENV)/learn2learn.log): \
	to_learn2learn, from_learn2learn and notebook 05 are not available and their tests are skipped. To try again: rm $(STAMP) && make env
# The first step of what installs. Continuous integration may link an environment of its own.
OWN_VENV = @[[ ! -L "$(VENV)" || -n "$${CI:-}" ]] || { \
	echo "$(VENV) is a link to $$(readlink "$(VENV)") and nothing was installed; to make an own one: rm $(VENV) && make env" >&2; \
	exit 1; }
# More arguments for JupyterLab (make lab), pytest (make test) or the notebook tool (make notebooks).
ARGS ?=
NOTEBOOK := notebooks/00_start_here.ipynb
LAB_SETTINGS := docs/lab
ROOT_FLAG := $(shell test "$$(id -u)" = 0 && echo --allow-root || true)

# One thread a process: the tests run in two processes, and small problems are slower with more threads.
# No progress bars either: a slow machine would print them into a notebook's output, which is compared.
THREADS := OMP_NUM_THREADS=1 TQDM_DISABLE=1

.PHONY: help env lab panels site test notebooks student slides check-mine bench bench-peers doctor format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS=$$'\t' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

env: $(STAMP) ## prepare the virtual environment in .venv, with the exact versions of constraints.txt
	@[[ -z "$(PYTHON)" ]] || cmp -s <("$(PYTHON)" -V) <($(BIN)/python -V) || { \
		echo "$(VENV) holds $$($(BIN)/python -V), $(PYTHON) is another; to make it anew: make clean env PYTHON=$(PYTHON)" >&2; \
		exit 1; }

# The stamp goes first and comes back last, so an interrupted installation is never taken for a finished one.
# Behind a link lies another checkout's environment, which an installation would turn towards this one.
$(STAMP): pyproject.toml constraints.txt Makefile
	$(OWN_VENV)
	@rm -f $@
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		found=""; seen=""; \
		for candidate in $(or $(PYTHON),$$(type -ap $(PYTHON_VERSIONS:%=python%) python3 python || true)); do \
			version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo "does not run"); \
			why=""; \
			"$$candidate" -c 'import venv, ensurepip' 2>/dev/null || why=", cannot make virtual environments"; \
			seen="$$seen $$candidate ($$version$$why);"; \
			[[ " $(PYTHON_VERSIONS) " == *" $$version "* || ( -n "$(PYTHON)" && "$$version" == 3.* ) ]] && [[ -z "$$why" ]] && { found="$$candidate"; break; }; \
		done; \
		[[ -n "$$found" ]] || { \
			echo "No usable Python among $(PYTHON_VERSIONS). Found:$${seen:- nothing on the PATH}" >&2; \
			echo "Install python3.11 with its venv and dev packages, or name one: make env PYTHON=/path/to/python3.12" >&2; \
			exit 1; }; \
		[[ " $(PYTHON_VERSIONS) " == *" $$version "* ]] || echo "Python $$version is untested; the pins are for $(PYTHON_VERSIONS)." >&2; \
		echo "Making $(VENV) with $$found"; \
		"$$found" -m venv --clear $(VENV); }
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,lab]"
	@echo "Compiling $(LEARN2LEARN)"
	@$(BIN)/python -m pip install --quiet --no-deps --config-settings="--build-option=build_ext" $(LEARN2LEARN) \
		>$(VENV)/learn2learn.log 2>&1 || echo "$(WITHOUT_LEARN2LEARN)" >&2
	@touch $@

lab: $(STAMP) ## open JupyterLab on the start notebook (ARGS="--no-browser --port 8899" passes more to it)
	$(BIN)/jupyter lab $(ROOT_FLAG) --ServerApp.root_dir=. --LabApp.app_settings_dir=$(CURDIR)/$(LAB_SETTINGS) $(NOTEBOOK) $(ARGS)

panels: $(STAMP) ## serve all panels as pages, without the notebooks (ARGS="--ip 0.0.0.0" lets other machines in)
	$(THREADS) $(BIN)/python -m explainlib panels $(ARGS)

$(SITE_STAMP): $(STAMP)
	$(OWN_VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[site]"
	@touch $@

site: $(SITE_STAMP) ## build the course, its documentation and the reference as a site in build/site; a broken link fails
	$(BIN)/python -m sphinx -b html -q -W --keep-going -c docs/site -d build/doctrees . build/site $(ARGS)
	@echo "build/site/index.html"

test: $(STAMP) ## run every check: style, tests, doctests, all notebooks against their saved outputs, browser
	$(BIN)/ruff check .
	$(THREADS) $(BIN)/python -m pytest tests explainlib notebooks -n 2 --dist loadfile --durations 15 -rs \
		--nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg $(ARGS)

notebooks: $(STAMP) ## run all notebooks again and save their outputs
	$(THREADS) $(BIN)/python -m explainlib notebooks $(ARGS)

student: $(STAMP) ## write the student's edition into build/student, solutions into build/solutions (ARGS=--nbgrader)
	$(BIN)/python -m explainlib course --student build/student --solutions build/solutions $(ARGS)

slides: $(STAMP) ## make slides of the notebooks in build/slides (ARGS="--no-code" hides code; ARGS=FILE makes one)
	$(BIN)/python -m explainlib slides $(ARGS)

check-mine: $(if $(NOTEBOOKS),$(STAMP)) ## check your own notebooks as this course is checked (NOTEBOOKS="mine/a.ipynb mine/b.ipynb")
	@[[ -n "$(NOTEBOOKS)" ]] || { echo 'Name your notebooks: make check-mine NOTEBOOKS="mine/a.ipynb mine/b.ipynb"' >&2; exit 2; }
	@$(BIN)/python -m explainlib notebooks $(NOTEBOOKS) --check || { code=$$?; \
		[[ $$code != 1 ]] || echo "Not the parts and lengths of the course: each line above says what to change." >&2; exit $$code; }
	@$(THREADS) $(BIN)/python -m pytest -c pyproject.toml --rootdir . -p no:cacheprovider --nbval --nbval-current-env \
		--nbval-sanitize-with tests/nbval_sanitize.cfg $(NOTEBOOKS) $(ARGS) || { \
		echo "A cell failed, or its output is no longer the saved one. If the new output is right, save it:" >&2; \
		echo "  $(BIN)/python -m explainlib notebooks $(NOTEBOOKS)" >&2; exit 1; }

bench: $(STAMP) ## time the library against plain loops and print the table
	$(BIN)/python -m benchmarks $(ARGS)

# The other libraries live in an environment of their own, beside the same torch and numpy; absent ones are skipped.
bench-peers: $(PEERS)/.installed ## race the library against captum, kronfluence, pyDVL, dattri and TRAK (see docs/peers.md)
	$(THREADS) $(PEERS)/bin/python -m benchmarks.peers $(ARGS)

$(PEERS)/.installed: $(STAMP) benchmarks/peers/requirements.txt
	@rm -f $@
	$(BIN)/python -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt $(TORCH)
	$(PEERS)/bin/python -m pip install --quiet -c constraints.txt -e . cloudpickle cycler dask distributed psutil PyYAML
	$(PEERS)/bin/python -m pip install --quiet --no-deps -r benchmarks/peers/requirements.txt
	@touch $@

doctor: $(STAMP) ## say what is installed, which device and data are at hand, and what to do about gaps
	$(BIN)/python -m explainlib doctor

format: $(STAMP) ## format the code and repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the virtual environment, caches and build products
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find explainlib tests benchmarks notebooks -name __pycache__ -prune -exec rm -rf {} + -o -name .ipynb_checkpoints -prune -exec rm -rf {} +
