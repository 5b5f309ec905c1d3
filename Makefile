# Every target sets up what it needs, once.
#   ARGS=...         passed on to pytest, the demo or the benchmark
#   PYTHON=python3.6 another interpreter than the newest one that is installed
#   WORKERS=0        number of processes that share the tests; 0: one process, in order
# With CI set, `make test` runs on CPython 3.6 and on the newest, and nothing may be missing or skipped.

WORKERS ?= 2
# The fast tests wait half of their time.
FAST_WORKERS ?= 4
# After a run that failed with pytest's exit code 1.
AGAIN = { [ $$? = 1 ] && [ -n "$$CI" ] && $$python -m tests.setup.again; }
PREPARE = python3 -m tests.setup.prepare
SOURCES = xscontainer tests rpm docs setup.py $(wildcard xapi-plugins/*)

.PHONY: help demo test test-fast lint bench pack docs release verify clean

help:
	@echo "make demo    show a simulated pool on this machine, and what its clients see (ARGS=--stay keeps it)"
	@echo "make test    run all tests (ARGS=tests/test_settings.py, PYTHON=python3.6)"
	@echo "make test-fast  run the tests that start no real server; installs only Python packages"
	@echo "make lint    run ruff, mypy, vermin for CPython 3.6, and check the layers and the words"
	@echo "make bench   run the measurements"
	@echo "make pack    build the supplemental pack in dist/ (SIGN_KEY=file or name of a key, TARGET=3.12 for another dom0)"
	@echo "make docs    write the reference pages and man pages from the code's own tables"
	@echo "make release build pack, sources, SBOM and signed checksums in dist/ from a clean tag (SIGN_KEY=...)"
	@echo "make verify  check that the release in dist/ was built from this tree"
	@echo "make clean   remove everything that make has built"

demo:
	@python=$$($(PREPARE) run $(PYTHON)) && exec $$python -m xscontainer.simulator.demo $(ARGS)

test:
	@pythons=$$($(PREPARE) test $(PYTHON) -- $(ARGS)) || exit 1; status=0; \
	for python in $$pythons; do \
		echo "=== $$($$python -V)"; \
		$$python -m pytest -n $(WORKERS) --dist loadfile $(ARGS) || $(AGAIN) || status=1; \
	done; exit $$status

test-fast:
	@python=$$($(PREPARE) fast $(PYTHON)) && echo "=== $$($$python -V)" && \
		{ $$python -m pytest -n $(FAST_WORKERS) --dist loadfile -m 'not real' $(ARGS) || $(AGAIN); }

lint:
	@python=$$($(PREPARE) lint $(PYTHON)) || exit 1; status=0; \
	$$python -m ruff check $(SOURCES) || status=1; \
	$$python -m mypy || status=1; \
	$$(dirname $$python)/vermin -q -t=3.6- --violations --no-tips --eval-annotations $(SOURCES) || status=1; \
	$$python -m pytest -q tests/test_layers.py tests/test_shape.py || status=1; \
	$$python -m tests.words || status=1; \
	exit $$status

bench:
	@python=$$($(PREPARE) test $(PYTHON)) && exec $$python -m tests.bench $(ARGS)

pack:
	@python=$$($(PREPARE) run $(PYTHON)) && exec $$python -m rpm.pack \
		$(if $(TARGET),--target '$(TARGET)') $(if $(SIGN_KEY),--sign-key '$(SIGN_KEY)') $(ARGS)

docs:
	@python=$$($(PREPARE) run $(PYTHON)) && $$python docs/generate.py $(ARGS) $(if $(ARGS),,&& exec $$python -m tests.docs.picture)

release:
	@python=$$($(PREPARE) run $(PYTHON)) && exec $$python -m rpm.release build \
		$(foreach target,$(TARGET),--target '$(target)') $(if $(SIGN_KEY),--sign-key '$(SIGN_KEY)') $(ARGS)

verify:
	@python=$$($(PREPARE) run $(PYTHON)) && exec $$python -m rpm.release verify $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/clients/node/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
