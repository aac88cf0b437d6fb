# Two commands: `make demo` and `make test`. Each makes .venv when it is not there; nothing but Python 3.11+ is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Pins the tested set, with a CPU build of torch where one is offered; `make CONSTRAINTS= demo` takes the newest, for a GPU.
CONSTRAINTS ?= -c constraints/cpu.txt
MESH ?= src/shapecodec/assets/nefertiti.drc
NAME := $(basename $(notdir $(MESH)))
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test clean

demo: $(VENV)/.demo
	@mkdir -p demo
	$(BIN)/shapecodec reconstruct $(MESH) --codec log3d-tiny --resolution 256 \
	    --output demo/$(NAME).glb --picture demo/$(NAME).png
	@echo "look at demo/$(NAME).png and demo/$(NAME).glb"

# Every check runs, whatever the ones before said; the tests come last, so that their summary closes the output.
test: $(VENV)/.test
	@failed=; \
	for check in "ruff check ." "ruff format --check ." "mypy" "lint-imports" "pytest"; do \
	    echo "== $$check"; \
	    PYTHONUNBUFFERED=1 $(BIN)/$$check || failed="$$failed [$$check]"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi; \
	echo "all checks passed"

$(BIN)/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
	    echo "$(PYTHON) is older than 3.11; name another one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints/cpu.txt | $(BIN)/python
	$(PIP) install --editable . $(CONSTRAINTS)
	@echo "compiling the CPU kernels, once: about a minute"
	@$(BIN)/shapecodec reconstruct tests/assets/trex.drc --codec log3d-tiny --resolution 64 --points 1000 \
	    --output $(VENV)/warm.ply --picture $(VENV)/warm.png >/dev/null 2>&1
	@touch $@

$(VENV)/.test: pyproject.toml constraints/cpu.txt | $(BIN)/python
	$(PIP) install --editable '.[test]' $(CONSTRAINTS)
	@touch $@

clean:
	rm -rf $(VENV) demo
