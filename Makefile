# Two commands are enough on a fresh machine with git and make: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_READY := $(VENV)/.demo-ready
BENCH_READY := $(VENV)/.bench-ready
BROWSER_READY := $(VENV)/.browser-ready
DOCS_READY := $(VENV)/.docs-ready
DEMO_DIR := .demo

.PHONY: prerequisites demo test test-long test-engines test-oldest test-replicaset test-browser quicktest bench bench-smoke bench-compare bench-commit bench-scale bench-candles bench-fail-over bench-load lint docs hooks public-types generate coverage changelog sanitize sdist wheel dist clean

# The first of every target: what the system must have, and a .venv. In order, since it may make .venv anew, and with it what is ready.
.NOTPARALLEL:
prerequisites:
	@PYTHON="$(PYTHON)" sh tools/prerequisites.sh

# Where an installation is cut short, .unfinished stays, and prerequisites.sh makes a new .venv.
define install
	@echo "Installing the extras [$(1)]"
	@trap 'exit 1' HUP INT TERM; touch $(VENV)/.unfinished; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check $(2); code=$$?; \
		test $$code -gt 2 || rm $(VENV)/.unfinished; exit $$code
endef
EXTRAS := embedded,cli,report

# The compiled core and what the demo needs; made again when the sources of the core or the metadata change.
$(DEMO_READY): pyproject.toml setup.py $(wildcard src/backtest_kit_mongo/_core/*.pyx src/backtest_kit_mongo/_core/*.pxd)
	$(call install,$(EXTRAS),--editable ".[$(EXTRAS)]")
	touch $@

# The tools of developers come on top; the package is there, so it is not built again.
$(READY): $(DEMO_READY)
	$(call install,dev,"backtest-kit-mongo[dev]")
	touch $@

# A seeded synthetic market, or real candles: make demo CSV=path/to/BTCUSDT.csv.gz
demo: prerequisites $(DEMO_READY)
	$(BIN)/backtest-kit-mongo demo --embedded-dir $(DEMO_DIR) $(if $(CSV),--csv "$(CSV)")

# Everything twice: over the wire protocol, and through the drivers alone, but for what is marked as `once` (conftest.py).
# Each worker has servers of its own; there are more of them than cores, as tests wait much, and who is done takes from the others.
WORKERS ?= 6
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -p no:benchmark

# The hundreds of Python processes that the tests start find the library compiled.
test test-long test-engines test-oldest test-replicaset test-browser quicktest coverage: export PYTHONDONTWRITEBYTECODE =

test: prerequisites $(READY)
	$(PYTEST) $(ARGS)
	CC_WIRE_LANE=0 $(PYTEST) $(ARGS)

# Everything over the wire protocol, with more moments of a kill and more rounds of random work than `make test`.
test-long: prerequisites $(READY)
	$(PYTEST) --long --crashes 300 --kills 200 $(ARGS)

# What needs a server, with the mongod of the tests as a replica set. (tests/stores/test_replica_set.py has one of three in any run.)
test-replicaset: prerequisites $(READY)
	KIT_TEST_REPLICA_SET=rs0 $(PYTEST) -m server $(ARGS)

# The page of a report in a real browser: Debian's packages chromium and chromium-driver (100 MB), installed if there is none.
# No part of `make test`; without a browser it fails.
$(BROWSER_READY): $(READY)
	$(call install,browser,"backtest-kit-mongo[browser]")
	touch $@

test-browser: prerequisites $(BROWSER_READY)
	@sh tools/prerequisites.sh --browser
	$(BIN)/python -m pytest browser -p no:benchmark $(ARGS)

# With the oldest drivers that pyproject.toml allows, in a folder of their own; `make test` has the newest.
OLDEST := build/oldest-drivers
test-oldest: prerequisites $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target $(OLDEST) "pymongo==4.9" "redis==5.1"
	PYTHONPATH=$(OLDEST) $(PYTEST) -m server $(ARGS)

# The examples with every engine, in an environment of its own over the one of the tests: vectorbt needs other versions than the benchmarks.
ENGINES := build/engines
PACKAGES := -c "import sysconfig; print(sysconfig.get_path('purelib'))"
test-engines: prerequisites $(READY)
	$(BIN)/python -m venv $(ENGINES)
	$(BIN)/python $(PACKAGES) > "$$($(ENGINES)/bin/python $(PACKAGES))/tests.pth"
	$(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check "backtest-kit-mongo[engines]"
	PYTHONPATH=$(CURDIR)/src $(ENGINES)/bin/python -m pytest -p no:benchmark tests/project/test_engine_examples.py $(ARGS)

# What needs no server and takes no seconds.
quicktest: prerequisites $(READY)
	$(PYTEST) -m "not server and not slow" $(ARGS)

# The manual, as build/manual/index.html. Every warning is an error; nothing is loaded from the network.
$(DOCS_READY): $(READY)
	$(call install,docs,"backtest-kit-mongo[docs]")
	touch $@

docs: prerequisites $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict
	@echo "The manual: build/manual/index.html (its search needs a server: $(BIN)/python -m http.server -d build/manual)"

# The rivals are no dependency of the library or of its tests, so they come with the first benchmark.
$(BENCH_READY): $(READY)
	$(call install,bench,"backtest-kit-mongo[bench]")
	touch $@

# The table of ratios against their targets, as JSON and as a plot too.
bench: prerequisites $(BENCH_READY)
	mkdir -p bench/results
	$(BIN)/python -m pytest bench --benchmark-quiet --benchmark-json=bench/results/latest.json $(ARGS)
	$(BIN)/python bench/report.py bench/results/latest.json --plot bench/results/latest.png

# Every benchmark once and short: shows that they run, measures nothing.
bench-smoke: prerequisites $(BENCH_READY)
	$(BIN)/python -m pytest bench --benchmark-quiet --bursts 1 $(ARGS)
	$(BIN)/python bench/scale.py --quick --output build/bench-smoke
	$(BIN)/python bench/load.py --smoke --faults
	$(BIN)/python bench/candle_formats.py --minutes 20000 --rounds 1

# Fails where a ratio of the last `make bench` is worse than the committed one by more than 15 %; ARGS=--update makes the last one the baseline.
bench-compare: prerequisites $(BENCH_READY)
	$(BIN)/python bench/compare.py $(ARGS)

# This tree beside another commit, in turn on this machine, which needs no baseline: make bench-commit COMMIT=HEAD~20
bench-commit: prerequisites $(BENCH_READY)
	$(BIN)/python bench/commits.py $(COMMIT) $(ARGS)

# Hits over 10^3 to 10^6 documents, and reads of a collection larger than MongoDB's memory.
bench-scale: prerequisites $(BENCH_READY)
	$(BIN)/python bench/scale.py $(ARGS)

# A year of candles beside Parquet, Feather, ArcticDB and pymongoarrow: time, disk, memory.
bench-candles: prerequisites $(BENCH_READY)
	$(BIN)/python bench/candle_formats.py $(ARGS)

# Read-after-write of many processes, as a linearizable history: on one server, or ARGS="--servers replica-set --faults".
bench-load: prerequisites $(BENCH_READY)
	$(BIN)/python bench/load.py $(ARGS)

# Nothing lost, no old read and no failed call while the primary of a replica set dies, steps down, is paused or cut off.
bench-fail-over: prerequisites $(BENCH_READY)
	$(BIN)/python bench/fail_over.py $(ARGS)

# The hooks of .pre-commit-config.yaml over all files, and the types of the public names.
lint: prerequisites $(READY)
	$(BIN)/pre-commit run --all-files --show-diff-on-failure
	@if command -v node >/dev/null; then $(MAKE) --no-print-directory public-types; \
		else echo "Not checked: the types of the public names (make public-types). It needs node, from Debian's package nodejs."; fi

# From now on git runs the hooks over the changed files before each commit.
hooks: prerequisites $(READY)
	$(BIN)/pre-commit install

# Fails unless pyright knows the type of every public name.
public-types: prerequisites $(READY)
	@mkdir -p build
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=src $(BIN)/pyright --ignoreexternal --verifytypes backtest_kit_mongo > build/public-types.txt \
		|| { cat build/public-types.txt; exit 1; }
	@grep score build/public-types.txt

# Python and Cython lines that the tests of the core and of candle files reach, in a traced copy of the tree. The floors are what these tests
# were measured to reach, less one percent; COVERED= takes others. Python 3.11 alone: coverage cannot follow Cython on later versions.
# A traced line may switch threads where an untraced one cannot, so the test of a cache that the GIL guards is left out.
COVERED ?= tests/core tests/candles
PYTHON_FLOOR ?= 40
CYTHON_FLOOR ?= 82
TRACED := $(CURDIR)/build/coverage
COVERAGE = cd $(TRACED) && PYTHONPATH=$(TRACED)/src $(abspath $(BIN))/coverage
coverage: prerequisites $(READY)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "make coverage needs Python 3.11: PYTHON=python3.11 make coverage")'
	rm -rf $(TRACED) && mkdir -p $(TRACED) && cp -r src tests bench examples conftest.py pyproject.toml setup.py README.md LICENSE $(TRACED)
	cd $(TRACED) && find src -name '*.so' -delete && BTKM_DEBUG=1 $(abspath $(BIN))/python setup.py -q build_ext --inplace
	cp $(TRACED)/build/cython-debug/src/backtest_kit_mongo/_core/*.c $(TRACED)/src/backtest_kit_mongo/_core
	$(COVERAGE) run --data-file=$(TRACED)/.coverage -m pytest -n $(WORKERS) --dist worksteal -p no:benchmark -m "not slow" \
		--deselect tests/core/test_records.py::test_more_texts_than_are_remembered $(COVERED) $(ARGS)
	$(COVERAGE) combine --quiet
	$(COVERAGE) html --quiet
	$(COVERAGE) report --include='*/_core/*' --fail-under=$(CYTHON_FLOOR)
	$(COVERAGE) report --omit='*/_core/*,*/cpython/*' --skip-covered --fail-under=$(PYTHON_FLOOR)

# The tests of the compiled core under AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of the tree.
sanitize: prerequisites $(READY)
	rm -rf build/sanitize && mkdir -p build/sanitize && cp -r src tests conftest.py pyproject.toml setup.py README.md LICENSE build/sanitize
	cd build/sanitize && find src -name '*.so' -delete && BTKM_SANITIZE=1 ../../$(BIN)/python setup.py -q build_ext --inplace
	cd build/sanitize && LD_PRELOAD=$$(gcc -print-file-name=libasan.so) PYTHONMALLOC=malloc PYTHONPATH=src \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		../../$(BIN)/python -m pytest tests/core -s -p no:faulthandler $(ARGS)

# What the next release will say, from the fragments of changelog.d/.
changelog: prerequisites $(READY)
	$(BIN)/towncrier build --draft --version next

generate: prerequisites $(READY)
	$(BIN)/python tools/generate_contracts.py
	$(BIN)/python tools/generate_completion.py

# Into dist/: the source distribution, a wheel without debug information that is built from it, or both.
dist: prerequisites $(READY)
	$(BIN)/python tools/make_dist.py all
	$(BIN)/python -m twine check --strict dist/*
sdist wheel: prerequisites $(READY)
	$(BIN)/python tools/make_dist.py $@

clean:
	rm -rf build dist $(DEMO_DIR) .pytest_cache .mypy_cache .ruff_cache .benchmarks $(DEMO_READY)
	find src -name '*.so' -delete
