# Everything a developer runs. Needed beforehand: make, and Python 3.11 to 3.14 with its venv module.
# The rest is installed below .tools/ and .venv/, at the versions that uv.lock names.

UV_VERSION := 0.13.8
UV := .tools/bin/uv
TOOLS := .tools/uv-$(UV_VERSION)
RUN := .venv/bin

# More processes than cores: many tests wait for servers and for processes of their own, so the cores are not the limit.
PYTEST_ARGS ?= -n $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 3 / 2) --dist worksteal

# Only interpreters that are already here: a build that downloads one is a surprise.
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv
# An activated environment of another project must not be synced by mistake.
unexport VIRTUAL_ENV
# Images of containers set it. Here hundreds of processes are started, and each would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test coverage simulate lint types mypy pyright bench check format

help:
	@echo "make demo    run the webhook and log pipelines on this machine, from made-up feeds to their summaries"
	@echo "make test    run every test"
	@echo "make coverage  what the tests of pipeline/decisions and pipeline/engine run of them; at least 95 % of each"
	@echo "make simulate  ten thousand runs of the simulation, ten minutes on two cores; SEEDS=100000 for more"
	@echo "make lint    ruff: rules and formatting"
	@echo "make types   mypy and pyright, both strict"
	@echo "make bench   measure against peers; prints ratios"
	@echo "make check   what CI runs: tests, coverage, lint, types, template, artifact, deployment, lock file, advisories"
	@echo "make format  let ruff rewrite the sources"

demo: .venv/.has-demo
	@$(RUN)/python demo/run.py

test: .venv/.has-all
	@$(RUN)/pytest -q $(PYTEST_ARGS)

# The packages that hold the promises, by their own tests. In a run of its own: all tests take two thirds longer when measured.
coverage: .venv/.has-all
	@$(RUN)/pytest -q $(PYTEST_ARGS) --cov --cov-report= tests/unit tests/engine
	@for package in decisions engine; do \
	  $(RUN)/coverage report --include="pipeline/$$package/*" --skip-covered --fail-under=95 || exit 1; \
	done

SEEDS ?= 10000

simulate: .venv/.has-all
	@$(RUN)/python -m tests.simulation --seeds $(SEEDS)

lint: .venv/.has-all
	@$(RUN)/ruff check
	@$(RUN)/ruff format --check --quiet || { echo "ruff format: these files differ; run 'make format'"; $(RUN)/ruff format --check; exit 1; }

types: mypy pyright

mypy pyright: .venv/.has-all
	@$(RUN)/$@

bench: .venv/.has-all
	@$(RUN)/python -m benchmarks

check:
	@.ci/run

format: .venv/.has-all
	@$(RUN)/ruff check --fix --quiet || true
	@$(RUN)/ruff format

# --- Deployment: `sam build --build-in-source` calls these, one for each function and layer of ------
# template.yaml. For another machine than the template's, such as this one, the environment says
# PIPELINE_PACKAGE_PYTHON=3.11 and PIPELINE_PACKAGE_PLATFORM=x86_64.

package = PATH="$(CURDIR)/.tools/bin:$$PATH" $(RUN)/pipeline package "$(ARTIFACTS_DIR)"

build-%Function: .venv/.has-demo
	@$(package)

build-%Layer: .venv/.has-demo
	@$(package) --part dependencies

# --- The environment. Each step leaves a stamp, so that nothing is done twice. -------------------

# An environment whose interpreter is gone (upgraded, or the checkout was moved) is made anew.
ifneq ($(shell $(RUN)/python -c "print('ok')" 2>/dev/null),ok)
.PHONY: .venv/.has-demo .venv/.has-all
PYTHON_FOR_VENV := --python .tools/bin/python
endif

# A second try with the machine's own certificates: behind a company's proxy uv's do not do, and a
# bare machine has none. The errors shown are the second one's.
sync = $(UV) sync --frozen --quiet $(1) $(PYTHON_FOR_VENV) 2>/dev/null || $(UV) sync --system-certs --frozen --quiet $(1) $(PYTHON_FOR_VENV)

# --inexact: the demo takes nothing away from an environment that has the development tools.
.venv/.has-demo: uv.lock pyproject.toml $(TOOLS)
	@echo "==> installing what the demo needs into .venv (locked versions)"
	@$(call sync,--inexact --extra all --no-dev)
	@touch $@

.venv/.has-all: uv.lock pyproject.toml $(TOOLS)
	@echo "==> installing everything, development tools included, into .venv (locked versions)"
	@$(call sync,--all-extras --all-groups)
	@touch .venv/.has-demo $@

# The newest supported interpreter that really runs: a pyenv shim stands on the PATH for versions
# that are not active, and fails when it is called. PYTHON=... overrides.
$(TOOLS):
	@set -e; chosen=; bare=; \
	for candidate in $(PYTHON) python3.14 python3.13 python3.12 python3.11 python3 python; do \
	  "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1 || continue; \
	  if "$$candidate" -c 'import venv, ensurepip' >/dev/null 2>&1; then chosen=$$candidate; break; fi; \
	  bare=$${bare:-$$candidate}; \
	done; \
	if [ -z "$$chosen" ] && [ -n "$$bare" ]; then \
	  echo "$$bare has no venv module, which is needed to install anything." >&2; \
	  echo "On Debian and Ubuntu: apt install python3-venv. Or name another one: make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	if [ -z "$$chosen" ]; then \
	  echo "Python 3.11, 3.12, 3.13 or 3.14 is needed, and none was found on the PATH." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	echo "==> setting up .tools/ with $$("$$chosen" --version) and uv $(UV_VERSION)"; \
	rm -rf .tools; "$$chosen" -m venv .tools; \
	.tools/bin/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"; \
	touch $@
