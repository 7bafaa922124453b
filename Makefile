# Two commands are enough on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_DIR := .demo

.PHONY: demo test bench bench-smoke lint stubs sanitize clean

# The environment and the compiled core; made again when the sources of the core or the metadata change.
$(READY): pyproject.toml setup.py $(wildcard src/backtest_kit_mongo/_core/*.pyx)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

# A seeded synthetic market, or real candles: make demo CSV=path/to/BTCUSDT.csv.gz
demo: $(READY)
	$(BIN)/backtest-kit-mongo run examples/sma_cross.py --backtest --entry --embedded --embedded-dir $(DEMO_DIR) $(if $(CSV),--csv "$(CSV)",--synthetic-days 7 --seed 42)

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

bench: $(READY)
	mkdir -p bench/results
	$(BIN)/python -m pytest bench --benchmark-quiet --benchmark-json=bench/results/latest.json $(ARGS)

# Every benchmark once and short: shows that they run, measures nothing.
bench-smoke: $(READY)
	$(BIN)/python -m pytest bench --benchmark-quiet --bursts 3 $(ARGS)

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
		../../$(BIN)/python -m pytest tests/test_core_bson.py tests/test_core_candles.py tests/test_core_keys.py tests/test_core_counters.py -s -p no:faulthandler $(ARGS)

stubs: $(READY)
	$(BIN)/python tools/make_stubs.py

clean:
	rm -rf build dist $(DEMO_DIR) .pytest_cache .mypy_cache .ruff_cache .benchmarks
	find src -name '*.so' -delete
