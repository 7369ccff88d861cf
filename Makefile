# Everything from a fresh machine: needs make and Python 3.11 or later, nothing else.
#
#   make demo    make test

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
EDGE_VENV := .venv-edge
AUDIT_VENV := .venv-audit
RELEASE_VENV := .venv-release
TRITON := .venv-triton
OGC_SCHEMAS := .ogc-schemas
BIN := $(VENV)/bin
EDGE_BIN := $(EDGE_VENV)/bin
AUDIT_BIN := $(AUDIT_VENV)/bin
RELEASE_BIN := $(RELEASE_VENV)/bin

# A name may be there and not run (version managers leave such shims), so each is tried.
runs = $(shell $(1) -c 'import sys; sys.exit(sys.version_info[:2] $(2))' >/dev/null 2>&1 && echo $(1))
first = $(firstword $(foreach python,$(1),$(call runs,$(python),$(2))))

# Training and export: Python 3.11 where present, for which a CPU build of torch is most at hand.
PYTHON ?= $(call first,python3.11 python3 python3.13 python3.12 python,< (3$(comma) 11))
# The runtime alone: its oldest Python (JetPack 6 has 3.10) where at hand, else the same one.
EDGE_PYTHON ?= $(or $(call first,python3.10 $(wildcard $(PYENV_ROOT)/versions/3.10*/bin/python),!= (3$(comma) 10)),$(PYTHON))
comma := ,

FUZZ_EXAMPLES ?= 20000

# The time of all files in what is released: that of the commit.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
# Those of the image in runtime/deploy: what an edge device gets.
SBOM_EXTRAS ?= cpu,live,readers

PIP_FLAGS := --quiet --disable-pip-version-check
# One process for each CPU (tests/conftest.py pins it there).
PYTEST_FLAGS ?= -n logical --maxprocesses 4 --dist worksteal

.PHONY: audit known-faults fuzz help venv venv-edge venv-compare venv-ray venv-triton ogc-schemas demo test test-all test-edge soak matrix matrix-ends lint format bench recipes wheel release release-sbom install-table container-steps notebooks docs clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# pip reads dependency groups since 25.1.
$(VENV)/.stamp: pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or later found; try: make PYTHON=/path/to/python3" >&2; exit 4; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install $(PIP_FLAGS) --editable '.[all]' --group dev
	@touch $@

$(EDGE_VENV)/.stamp: pyproject.toml
	@test -n "$(EDGE_PYTHON)" || { echo "make: no Python 3.10 or later found; try: make EDGE_PYTHON=/path/to/python3" >&2; exit 4; }
	test -x $(EDGE_BIN)/python || $(EDGE_PYTHON) -m venv $(EDGE_VENV)
	$(EDGE_BIN)/python -m pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	$(EDGE_BIN)/python -m pip install $(PIP_FLAGS) --editable '.[cpu]' --group edge
	@touch $@

$(AUDIT_VENV)/.stamp: pyproject.toml
	test -x $(AUDIT_BIN)/python || $(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_BIN)/python -m pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	$(AUDIT_BIN)/python -m pip install $(PIP_FLAGS) --group audit
	@touch $@

$(RELEASE_VENV)/.stamp: pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or later found; try: make PYTHON=/path/to/python3" >&2; exit 4; }
	test -x $(RELEASE_BIN)/python || $(PYTHON) -m venv $(RELEASE_VENV)
	$(RELEASE_BIN)/python -m pip install $(PIP_FLAGS) --upgrade 'pip>=25.1'
	$(RELEASE_BIN)/python -m pip install $(PIP_FLAGS) --group release
	@touch $@

venv: $(VENV)/.stamp ## make .venv with everything for development

venv-edge: $(EDGE_VENV)/.stamp ## make .venv-edge as an edge device has it: no torch, no onnx

venv-compare: venv ## add pysteps, which judges readers and scores from outside; compiles a minute
	$(BIN)/python -m pip install $(PIP_FLAGS) --group compare

venv-ray: venv ## add Ray, for the test of the recipe in examples/ray_streams.py; 79 MB
	$(BIN)/python -m pip install $(PIP_FLAGS) --group ray

# The wheel asks for numpy below 2, and nothing but its binaries is used.
$(TRITON)/.stamp: | $(VENV)/.stamp
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --upgrade --target $(TRITON) nvidia-pytriton==0.7.0
	@touch $@

venv-triton: $(TRITON)/.stamp ## add a Triton server, for the tests of served models: Linux, x86-64, 144 MB

# MapProxy brings the schemas of the OGC with its tests; of its wheel, nothing else is kept.
$(OGC_SCHEMAS)/.stamp: | $(VENV)/.stamp
	rm -rf build/mapproxy $(OGC_SCHEMAS)
	$(BIN)/python -m pip download $(PIP_FLAGS) --no-deps --only-binary :all: --dest build/mapproxy mapproxy==7.0.0
	$(BIN)/python -m zipfile --extract build/mapproxy/*.whl build/mapproxy/unpacked
	mv build/mapproxy/unpacked/mapproxy/test/schemas $(OGC_SCHEMAS)
	rm -rf build/mapproxy
	@touch $@

ogc-schemas: $(OGC_SCHEMAS)/.stamp ## add the OGC's schemas, which the WMS and the WMTS are held against; 3 MB are fetched

demo: venv ## train, export, verify and stream on this machine: the whole story
	$(BIN)/stpl-deploy demo

test: test-edge test-all ## every test, and the runtime's without torch

test-all: venv
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-edge: venv-edge
	STPL_TORCH_FREE=1 $(EDGE_BIN)/python -m pytest -o cache_dir=$(EDGE_VENV)/.pytest_cache tests/core tests/deploy tests/runtime $(PYTEST_FLAGS)

fuzz: venv ## hours of hostile files, manifests, graphs and states (FUZZ_EXAMPLES each)
	$(BIN)/python -m tests.fuzz.campaign --inputs $(FUZZ_EXAMPLES) --out dist/fuzz.jsonl

audit: venv $(AUDIT_VENV)/.stamp ## bandit over our code; what we depend on, as dist/sbom.json
	$(AUDIT_BIN)/bandit --quiet --configfile pyproject.toml --recursive core train runtime export stpl_deploy
	mkdir -p dist
	$(AUDIT_BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-format JSON --output-file dist/sbom.json
	@$(BIN)/python -c 'import json; print(len(json.load(open("dist/sbom.json"))["components"]), "components in dist/sbom.json")'

known-faults: venv $(AUDIT_VENV)/.stamp ## look up published faults of what we depend on
	@mkdir -p dist
	@# It ends with 1 for a fault and for a service that it cannot reach; only then it writes nothing.
	@rm -f dist/faults.json; $(AUDIT_BIN)/pip-audit --progress-spinner off --skip-editable --format json --output dist/faults.json \
	  --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); code=$$?; \
	  test -s dist/faults.json || { echo "published faults were not looked up: the service cannot be reached from here"; exit 0; }; \
	  $(BIN)/python -c "$$COUNT_LOOKED_UP"; exit $$code

# An index that does not know a package says nothing of its faults; pip-audit calls that none found.
define COUNT_LOOKED_UP
import json
found = json.load(open("dist/faults.json"))["dependencies"]
known = [one for one in found if "skip_reason" not in one]
print(len(known), "of", len(found), "components were looked up")
endef
export COUNT_LOOKED_UP

soak: venv ## the long runs, by hand
	$(BIN)/python -m pytest -m soak $(PYTEST_FLAGS)

matrix: venv ## verify trained bundles on the whole range of versions; writes docs/support.md
	$(BIN)/python benchmarks/support_matrix.py

matrix-ends: venv ## the same on the oldest and the newest versions, and on the lowest of all together
	$(BIN)/python benchmarks/support_matrix.py --ends

lint: venv ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv ## time full-size models on this machine; writes benchmarks/results/
	$(BIN)/python benchmarks/arrival_to_nowcast.py
	$(BIN)/python benchmarks/loader_throughput.py

recipes: venv ## every recipe, narrowed: train, evaluate, export, verify (a quarter of an hour)
	$(BIN)/python benchmarks/try_recipes.py

notebooks: venv ## run the notebooks of the documents
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 -o timeout=600 docs/notebooks

docs: venv ## the documents as a site, in dist/site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

wheel: venv ## build dist/*.whl
	$(BIN)/python -m build --wheel

release: $(RELEASE_VENV)/.stamp ## sdist and wheel for an index, in dist/release: built twice, the same, checked
	rm -rf dist/release dist/again
	for out in release again; do SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) \
	  $(RELEASE_BIN)/python -m build --no-isolation --outdir dist/$$out >/dev/null || exit 1; done
	diff --recursive dist/release dist/again
	rm -rf dist/again
	$(RELEASE_BIN)/twine check --strict dist/release/*
	$(RELEASE_BIN)/check-wheel-contents dist/release/*.whl

release-sbom: $(RELEASE_VENV)/.stamp ## after make release: the parts of what an edge device gets, in dist/release-sbom.json
	rm -rf build/sbom
	$(RELEASE_BIN)/python -m venv --without-pip build/sbom
	$(RELEASE_BIN)/python -m pip --python build/sbom/bin/python install $(PIP_FLAGS) "$$(echo dist/release/*.whl)[$(SBOM_EXTRAS)]"
	$(RELEASE_BIN)/cyclonedx-py environment build/sbom/bin/python --pyproject pyproject.toml --output-reproducible \
	  --output-format JSON --output-file dist/release-sbom.json
	rm -rf build/sbom

install-table: venv ## what each extra weighs on each Python at hand; writes docs/install.md
	$(BIN)/python -m benchmarks.install_table

container-steps: venv ## the steps of the Dockerfile without Docker, by an ordinary user
	$(BIN)/python -m benchmarks.container_steps

clean: ## remove what was built, and the virtual environments
	rm -rf $(VENV) $(EDGE_VENV) $(AUDIT_VENV) $(RELEASE_VENV) $(TRITON) $(OGC_SCHEMAS) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
