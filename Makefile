# One command per intention; CI calls the same ones.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
# The CPU build of torch; elsewhere than on Linux, or with a mirror, plain "torch==2.13.0" does.
TORCH  ?= torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
# The order of the tests: shuffled, and the same for you and for CI; ORDER=default shuffles anew.
ORDER  ?= 1

.PHONY: help demo test security hosts check format proto golden fault trace-backend helm helm-run helm-golden image-check image-lock image-sbom dashboards dashboards-write dashboards-setup bench bench-70b bench-faults bench-peers bench-serve clean

help:            ## list the commands
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/server: pyproject.toml
	@echo "Setting up $(VENV) (about a minute the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[server]'
	@touch $@

$(VENV)/test: pyproject.toml
	@echo "Setting up $(VENV) for the tests (about a minute the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/server

demo: $(VENV)/server   ## stream a text from the bundled model through a local two-stage cluster
	@$(BIN)/trireme demo

test: $(VENV)/test     ## all tests but those of `make helm`, `make security` and `make hosts`
	$(BIN)/python -m pytest --randomly-seed=$(ORDER) --ignore tests/helm --ignore tests/security --ignore tests/hosts

security: $(VENV)/test ## the security tests (two minutes)
	$(BIN)/python -m pytest --randomly-seed=$(ORDER) tests/security

check: $(VENV)/test    ## style, types, layers, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check

format: $(VENV)/test   ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden:          ## record what Hugging Face transformers computes, and compare with it (installs torch: 1 GB)
	@test -x $(VENV)-golden/bin/python || $(PYTHON) -m venv $(VENV)-golden
	@$(VENV)-golden/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH) transformers accelerate -e '.[test]'
	$(VENV)-golden/bin/python -m tests.golden.record
	$(VENV)-golden/bin/python -m pytest tests/golden

# Minutes of faults, and the seed that all of them follow from.
MINUTES ?= 60
SEED    ?= 1

hosts: $(VENV)/test    ## `trireme up` and `down` on real SSH servers, and the units under a real systemd (four minutes)
	$(BIN)/python -m pytest --randomly-seed=$(ORDER) tests/hosts

fault: $(VENV)/test    ## inject faults into a real cluster for MINUTES=60 with SEED=1, and check that no answer shows it
	$(BIN)/python -m tests.fault --minutes $(MINUTES) --seed $(SEED) --nodes 4 --stages 3 --coordinators 2 --clients 8 \
	  --report benchmarks/fault-soak.json

trace-backend: $(VENV)/test  ## a request over three stages in a real tracing backend (installs Arize Phoenix: 800 MB)
	@test -x $(VENV)-phoenix/bin/python || $(PYTHON) -m venv $(VENV)-phoenix
	@$(VENV)-phoenix/bin/python -m pip install --quiet --disable-pip-version-check arize-phoenix==20.26.1
	$(BIN)/python -m tests.traces.backend $(VENV)-phoenix/bin/phoenix

proto: $(VENV)/test    ## regenerate the gRPC code
	$(BIN)/python proto/generate.py

helm: $(VENV)/test     ## all tests of the Helm chart and the image (three minutes)
	$(BIN)/python -m pytest --randomly-seed=$(ORDER) tests/helm

helm-run: $(VENV)/test   ## run the rendered manifests of the laptop as processes, and ask for tokens
	$(BIN)/python -m pytest tests/helm/test_run.py

helm-golden: $(VENV)/test  ## rewrite what is generated for the chart: sizes, list of values, recorded manifests
	$(BIN)/python helm/shapes.py
	$(BIN)/python helm/key_tables.py
	$(BIN)/python helm/values_reference.py
	$(BIN)/python -m tests.helm.golden

image-check: $(VENV)/test  ## run the install steps of the Dockerfile in a clean folder (downloads all libraries)
	$(BIN)/python -m tests.helm.image_steps

image-lock: $(VENV)/test   ## choose the versions of the image's libraries anew
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --universal --upgrade --generate-hashes --no-annotate --no-header --python-version 3.11 \
	  --extra server -o docker/requirements.txt pyproject.toml
	$(MAKE) image-sbom

image-sbom: $(VENV)/test   ## list what is in the image (CycloneDX), out of its lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7'
	$(BIN)/cyclonedx-py requirements --output-reproducible --mc-type application --pyproject pyproject.toml \
	  -o docker/sbom.cdx.json docker/requirements.txt

dashboards: $(VENV)/test  ## all tests of dashboards and alerts: every query in a real Prometheus, pages in Chromium (five minutes)
	$(BIN)/python -m pytest --randomly-seed=$(ORDER) tests/dashboards tests/dashboards/live

dashboards-setup: $(VENV)/test  ## install what the command above looks with: Prometheus and Chromium (apt, as root), Playwright (pip)
	apt-get install --yes --no-install-recommends prometheus chromium
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[look]'

dashboards-write: $(VENV)/test  ## rewrite helm/trireme/dashboards and docs/dashboards.md out of helm/boards
	$(BIN)/python helm/dashboards.py

# What `make bench` measures: a file of benchmarks/ and the arguments of `trireme bench` for it.
BENCHES = \
	kernels:kernels \
	decode-2b4t-1:decode_2b4t_--threads_1 decode-2b4t:decode_2b4t \
	decode-2b4t-8:decode_2b4t_--batch_8 decode-2b4t-16:decode_2b4t_--batch_16 \
	decode-2b4t-1-2bit:decode_2b4t_--threads_1_--layout_2bit \
	decode-8b-1:decode_8b_--threads_1 decode-8b:decode_8b decode-70b-1:decode_70b_--threads_1 decode-70b:decode_70b \
	decode-2b4t-4096:decode_2b4t_--context_4096_--kv_int8 \
	prefill-2b4t-1:prefill_2b4t_--threads_1 prefill-2b4t:prefill_2b4t

bench: $(VENV)/test    ## measure the kernels against this machine's limits and rewrite benchmarks/README.md (10 minutes, nothing else running)
	@for each in $(BENCHES); do echo "$${each#*:}" | tr _ ' '; \
	  $(BIN)/trireme bench $$(echo "$${each#*:}" | tr _ ' ') --json > benchmarks/$${each%%:*}.json || exit 1; done
	@$(BIN)/python -m trireme_worker.bench.page benchmarks/README.md

bench-peers: $(VENV)/test  ## the same beside llama.cpp's TQ2_0 (builds it: 20 minutes; measures: 30)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/trireme bench peers 2b4t --format TQ2_0 --batch 1 --json > benchmarks/peers-2b4t.json
	$(BIN)/trireme bench peers 2b4t --format TQ2_0 --threads 2 --batch 1 --batch 16 --context 64 --tokens 64 --json > benchmarks/peers-2b4t-16.json
	$(BIN)/trireme bench peers 8b --format TQ2_0 --batch 1 --tokens 256 --json > benchmarks/peers-8b.json
	@$(BIN)/python -m trireme_worker.bench.page benchmarks/README.md

bench-serve: $(VENV)/test  ## what the service adds: one stream over gRPC beside the bare kernels (writes a pack of 1.6 GB)
	@test -d build/2b4t || $(BIN)/trireme synth build/2b4t --shape 2b4t
	$(BIN)/trireme bench overhead build/2b4t --threads 1 --json > benchmarks/overhead-1.json
	$(BIN)/trireme bench pipeline --stages 4 --streams 4 --json > benchmarks/pipeline-4.json
	$(BIN)/trireme bench pipeline --stages 16 --streams 17 --prompt 0 --load-seconds 0 --json > benchmarks/pipeline-16.json
	$(BIN)/trireme bench scheduler --json > benchmarks/scheduler.json
	@$(BIN)/python -m trireme_worker.bench.page benchmarks/README.md

bench-70b: $(VENV)/test  ## a 70B pack over two stages on this machine, beside its plan (writes 17.4 GB, needs 20 GB of memory; 6 minutes)
	@test -d build/70b || $(BIN)/trireme synth build/70b --shape 70b
	$(BIN)/trireme bench plan build/70b --stages 2 --prompt 32 --tokens 16 --rounds 12 --json > benchmarks/plan-70b.json
	@$(BIN)/python -m trireme_worker.bench.page benchmarks/README.md

bench-faults: $(VENV)/test  ## workers, coordinators and Redis killed under running streams (20 minutes; `make fault` is the soak)
	$(BIN)/trireme bench recovery --kills 200 --json > benchmarks/recovery-200.json
	$(BIN)/trireme bench failover --kills 50 --json > benchmarks/failover-50.json
	$(BIN)/trireme bench redis --json > benchmarks/redis-faults.json
	$(BIN)/trireme bench resume 2b4t --json > benchmarks/resume-2b4t.json
	$(BIN)/trireme bench resume 2b4t --kv int8 --json > benchmarks/resume-2b4t-int8.json
	@$(BIN)/python -m trireme_worker.bench.page benchmarks/README.md

clean:           ## remove what the other commands made
	rm -rf $(VENV) $(VENV)-golden $(VENV)-phoenix build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
