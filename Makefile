# Every target sets up what it needs; one that is set up already starts at once.
#   ARGS=...         handed on: to pytest, to the demo, to the benchmark
#   PYTHON=python3.6 another interpreter than the newest one here
#   WORKERS=0        how many processes share the tests; 0: all in one, in order
# With CI set, `make test` runs on CPython 3.6 and on the newest, and nothing may be missing or skipped.

WORKERS ?= 2
PREPARE = python3 -m tests.setup.prepare
SOURCES = xscontainer tests rpm setup.py $(wildcard xapi-plugins/*)

.PHONY: help demo test lint bench pack clean

help:
	@echo "make demo    a simulated pool on this machine, and what its clients see (ARGS=--stay keeps it)"
	@echo "make test    the whole test suite (ARGS=tests/test_settings.py, PYTHON=python3.6)"
	@echo "make lint    ruff, mypy, vermin for CPython 3.6, and the layer test"
	@echo "make bench   the measurements"
	@echo "make pack    the supplemental pack in dist/ (SIGN_KEY=file or name of a key, TARGET=3.12 for another dom0)"
	@echo "make clean   remove everything that make has made"

demo:
	@python=$$($(PREPARE) run $(PYTHON)) && exec $$python -m xscontainer.simulator.demo $(ARGS)

test:
	@pythons=$$($(PREPARE) test $(PYTHON)) || exit 1; status=0; \
	for python in $$pythons; do \
		echo "=== $$($$python -V)"; \
		$$python -m pytest -n $(WORKERS) --dist loadfile $(ARGS) || status=1; \
	done; exit $$status

lint:
	@python=$$($(PREPARE) lint $(PYTHON)) || exit 1; status=0; \
	$$python -m ruff check $(SOURCES) || status=1; \
	$$python -m mypy || status=1; \
	$$(dirname $$python)/vermin -q -t=3.6- --violations --no-tips --eval-annotations $(SOURCES) || status=1; \
	$$python -m pytest -q tests/test_layers.py || status=1; \
	exit $$status

bench:
	@python=$$($(PREPARE) test $(PYTHON)) && exec $$python -m tests.bench $(ARGS)

pack:
	@python=$$($(PREPARE) run $(PYTHON)) && exec $$python -m rpm.pack \
		$(if $(TARGET),--target '$(TARGET)') $(if $(SIGN_KEY),--sign-key '$(SIGN_KEY)') $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/clients/node/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
