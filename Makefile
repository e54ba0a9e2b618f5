# One command per intention; CI calls the same ones.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
# The CPU build of torch; elsewhere than on Linux, or with a mirror, plain "torch==2.13.0" does.
TORCH  ?= torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu

.PHONY: help demo test check format proto golden chart chart-run chart-golden image-check image-lock clean

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

test: $(VENV)/test     ## all tests
	$(BIN)/python -m pytest

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

proto: $(VENV)/test    ## regenerate the gRPC code
	$(BIN)/python proto/generate.py

chart: $(VENV)/test    ## all tests of the Helm chart and the image
	$(BIN)/python -m pytest tests/helm

chart-run: $(VENV)/test  ## run the rendered manifests of the laptop as processes, and ask for tokens
	$(BIN)/python -m pytest tests/helm/test_run.py

chart-golden: $(VENV)/test  ## rewrite what is generated for the chart: sizes, list of values, recorded manifests
	$(BIN)/python helm/shapes.py
	$(BIN)/python helm/values_reference.py
	$(BIN)/python -m tests.helm.golden

image-check: $(VENV)/test  ## run the install steps of the Dockerfile in a clean folder (downloads all libraries)
	$(BIN)/python -m tests.helm.image_steps

image-lock: $(VENV)/test   ## choose the versions of the image's libraries anew
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --universal --upgrade --generate-hashes --no-annotate --no-header --python-version 3.11 \
	  --extra server -o docker/requirements.txt pyproject.toml

clean:           ## remove what the other commands made
	rm -rf $(VENV) $(VENV)-golden build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
