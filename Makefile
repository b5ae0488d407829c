# `make demo` and `make test` set everything up by themselves: a virtual environment in .venv with the locked dependencies
# and, where Debian's packages may be installed, QEMU. Nothing else is assumed but python3.11 or newer and make.

PYTHON ?= $(shell ./scripts/find-python)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint bench soak lock sdk setup qemu clean unit
.DEFAULT_GOAL := test

demo: setup
	$(BIN)/osvdeploy demo

# What Python compiles is kept, also where the environment says otherwise: pytest rewrites each test's asserts, and would
# do so anew in every worker of every run, which is a fifth of what `make unit` does.
test unit: export PYTHONDONTWRITEBYTECODE :=

test: setup
	$(BIN)/python -m pytest

# None of these tests waits: more workers than cores would only collect once more each.
unit: $(STAMP)
	$(BIN)/python -m pytest -n auto -m "not boot and not slow and not osv and not sandbox and not whole"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Any commands in any order, by processes that die anywhere, every kind of trouble at every call, and processes that are
# really killed: an hour or two.
soak: $(STAMP)
	OSVDEPLOY_SCHEDULES=10000 OSVDEPLOY_FAULTS_SHARE=1 OSVDEPLOY_KILLS=20 OSVDEPLOY_STOPS_EVERY=1 \
		OSVDEPLOY_DEATHS_EVERY=1 OSVDEPLOY_LATE=12 OSVDEPLOY_STILL=200 $(BIN)/python -m pytest \
		tests/faults/test_schedules.py tests/faults/test_matrix.py tests/faults/test_slow_cloud.py \
		tests/faults/test_killed.py tests/faults/test_two_controllers.py \
		tests/faults/test_rollout_crashes.py tests/faults/test_gcp_crashes.py

bench: setup
	$(BIN)/python -m pytest tests/benchmarks --benchmarks -s -n 0

setup: $(STAMP) qemu

# uv, of the lock itself, installs the rest of it: in 7 s, where pip took 70, and 40 more to compile it in one process. It
# does not read pip's settings: where packages come by way of those, and it finds none, pip has to do it.
$(STAMP): requirements.lock pyproject.toml
	@python="$(PYTHON)"; \
	test -n "$$python" || { echo "osvdeploy needs python3.11 or newer; none was found on PATH (set PYTHON=/path/to/python3)" >&2; exit 1; }; \
	"$$python" -m venv --clear $(VENV) || { echo "$$python cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.lock
	$(PIP) --require-hashes -r $(VENV)/uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock || $(PIP) --no-compile --require-hashes -r requirements.lock
	@# setuptools warns, over ten lines, of what an editable installation is. A path in place of its finder, which every
	@# Python of this environment would import: that is half of the time in which one starts.
	PYTHONWARNINGS=ignore $(PIP) --no-deps --no-build-isolation --config-settings editable_mode=compat -e . -e sdk/python
	@# The SDKs of clouds are left to whoever imports a part of them: they are half of all that there is to compile.
	$(BIN)/python -m compileall -qq -j 0 -x 'pulumi_(aws|gcp)/' $(VENV)/lib osvdeploy tests || true
	@touch $@

# QEMU boots what is built, in tests and in the demo. Where it cannot be installed, both say what they leave out.
qemu:
	@command -v qemu-system-x86_64 >/dev/null 2>&1 || ./scripts/install-qemu

lock:
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements.lock

# The schema from the declarations, and the Python SDK from the schema; the second by Pulumi's own command.
sdk: $(STAMP)
	$(BIN)/python -m osvdeploy.provider.schema > schema.part && mv schema.part osvdeploy/provider/schema.json
	@command -v pulumi >/dev/null 2>&1 || { echo "the SDK is made by Pulumi's own generator: install pulumi" >&2; exit 1; }
	pulumi schema check osvdeploy/provider/schema.json
	rm -rf sdk/python
	pulumi package gen-sdk osvdeploy/provider/schema.json --language python --out sdk
	cp sdk/python/pulumi_osvdeploy/README.md sdk/python/README.md # its pyproject.toml names it there

clean:
	rm -rf $(VENV)
