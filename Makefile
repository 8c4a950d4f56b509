# make demo            train and evaluate the detector with its defaults      (ARGS="--preset tiny --epochs 3" to change them)
# make test            every test but the slow ones
# make test-slow       the slow tests: runs that are killed and resumed, several processes, the largest model, ablations
# make test-machines   every test, as other processors, thread counts, terminals and orders would run it (ARGS="order --seed 7": one)
# make test-chaos      kills, full disks, hostile files and flags: what survives (Linux; 25 minutes at most) → docs/chaos.md
# make charts          draw every chart of hyper_parameter_tuning_charts again, from the data beside it (ARGS=FOLDER: another folder)
# make site            build the web site of notes and documents → site/index.html
# make notebooks       run every notebook in full and write it with its outputs (ARGS=attention: one)
# make clean           remove the environment and the caches; runs/ and data/ stay
#
# The first call makes .venv and installs into it. PYTHON=python3.12 chooses the interpreter. On Linux, pip may take the
# CUDA build of torch; where there is no GPU, PyTorch's installation page names the index of the small CPU build, to be set
# as PIP_EXTRA_INDEX_URL in the environment.

PYTHON  ?= python3
VENV    := .venv
READY   := $(VENV)/.ready
MORE    := $(VENV)/.more
# Tests run in WORKERS processes of THREADS threads each (WORKERS=0: in one process, which a debugger can enter). Threads
# wait asleep, so that more of them than cores do not keep one another from their work.
WORKERS ?= 2
THREADS ?= 1
TESTING  = OMP_NUM_THREADS=$(THREADS) OMP_WAIT_POLICY=passive $(VENV)/bin/python -m pytest -n $(WORKERS)

.PHONY: demo test test-slow test-machines test-chaos charts site notebooks more clean

demo: $(READY)
	$(VENV)/bin/python detr_scratch.py $(ARGS)

test: $(MORE)
	$(TESTING) -m "not slow" $(ARGS)

test-slow: $(MORE)
	$(TESTING) -m slow $(ARGS)

test-machines: $(MORE)
	$(VENV)/bin/python -m tests.machines --workers $(WORKERS) $(ARGS)

test-chaos: $(MORE)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.chaos --out docs $(ARGS)

charts: $(READY)
	$(VENV)/bin/python -m commands.redraw $(ARGS)

site: $(MORE)
	$(VENV)/bin/python -m docs.site $(ARGS)

notebooks: $(MORE)
	$(VENV)/bin/python -m notebooks.execute $(ARGS)

# The environment with all packages, and nothing else done: to open a notebook in an editor, say.
more: $(MORE)

$(MORE): requirements-more.txt $(READY)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -r requirements-more.txt -c constraints.txt
	@touch $@

$(READY): requirements.txt constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.10 or newer, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$$($(PYTHON) --version 2>&1) is too old: Python 3.10 or newer is needed; name one: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make environments: install its venv module (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -r requirements.txt -c constraints.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
