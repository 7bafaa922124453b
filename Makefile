# Two commands are enough on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.bench-ready
DEMO_DIR := .demo

.PHONY: demo test quicktest bench bench-smoke bench-compare bench-scale lint stubs sanitize clean

# The environment and the compiled core; made again when the sources of the core or the metadata change.
$(READY): pyproject.toml setup.py $(wildcard src/backtest_kit_mongo/_core/*.pyx src/backtest_kit_mongo/_core/*.pxd)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

# A seeded synthetic market, or real candles: make demo CSV=path/to/BTCUSDT.csv.gz
demo: $(READY)
	CC_DUMP_DIR=$(DEMO_DIR)/dump $(BIN)/backtest-kit-mongo run examples/sma_cross.py --backtest --entry --embedded --embedded-dir $(DEMO_DIR) $(if $(CSV),--csv "$(CSV)",--synthetic-days 7 --seed 42)

# Everything twice: over the wire lane, and through the drivers alone, but for what is marked as `once` (conftest.py).
# Each worker has servers of its own; there are more of them than cores, as tests wait much.
WORKERS ?= 3

# The hundreds of Python processes that the tests start find the library compiled.
test quicktest: export PYTHONDONTWRITEBYTECODE =

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) -p no:benchmark $(ARGS)
	CC_WIRE_LANE=0 $(BIN)/python -m pytest -n $(WORKERS) -p no:benchmark $(ARGS)

# What needs no server and takes no seconds.
quicktest: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) -p no:benchmark -m "not server and not slow" $(ARGS)

# The rivals are no dependency of the library or of its tests, so they come with the first benchmark.
$(BENCH_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	touch $@

# The table of ratios against their targets, as JSON and as a plot too.
bench: $(BENCH_READY)
	mkdir -p bench/results
	$(BIN)/python -m pytest bench --benchmark-quiet --benchmark-json=bench/results/latest.json $(ARGS)
	$(BIN)/python bench/report.py bench/results/latest.json --plot bench/results/latest.png

# Every benchmark once and short: shows that they run, measures nothing.
bench-smoke: $(BENCH_READY)
	$(BIN)/python -m pytest bench --benchmark-quiet --bursts 1 $(ARGS)
	$(BIN)/python bench/scale.py --quick --output build/bench-smoke

# Fails where a ratio of the last `make bench` is worse than the committed one by more than 15 %; ARGS=--update makes the last one the baseline.
bench-compare: $(BENCH_READY)
	$(BIN)/python bench/compare.py $(ARGS)

# Hits over 10^3 to 10^6 documents, and reads of a collection larger than MongoDB's memory.
bench-scale: $(BENCH_READY)
	$(BIN)/python bench/scale.py $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tests of the compiled core under AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of the tree.
sanitize: $(READY)
	rm -rf build/sanitize && mkdir -p build/sanitize && cp -r src tests conftest.py pyproject.toml setup.py README.md LICENSE build/sanitize
	cd build/sanitize && find src -name '*.so' -delete && BTKM_SANITIZE=1 ../../$(BIN)/python setup.py -q build_ext --inplace
	cd build/sanitize && LD_PRELOAD=$$(gcc -print-file-name=libasan.so) PYTHONMALLOC=malloc PYTHONPATH=src \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		../../$(BIN)/python -m pytest tests/test_core_*.py -s -p no:faulthandler $(ARGS)

stubs: $(READY)
	$(BIN)/python tools/make_stubs.py

clean:
	rm -rf build dist $(DEMO_DIR) .pytest_cache .mypy_cache .ruff_cache .benchmarks
	find src -name '*.so' -delete
