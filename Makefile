# make demo: from nothing to a picture.   make test: the whole test suite.   make serve: ComfyUI in a browser.
# make test-oldest, make test-releases: the smoke tests on the oldest ComfyUI, and on it and later ones, beside the other in .dev.
# COMFYUI_PATH and COMFYUI_PYTHON use a ComfyUI of your own and install nothing (but for test-oldest, test-releases and
# test-transformers-4, which fetch what they are named after); COMFYUI_FLAGS are flags for it.

PYTHON ?= python3
RUN = $(if $(COMFYUI_PYTHON),$(COMFYUI_PYTHON),.dev/venv/bin/python)

.PHONY: setup demo test test-oldest test-releases test-transformers-4 lint serve bench
setup:
	@"$(PYTHON)" -m tools.setup $(if $(filter command environment,$(firstword $(origin PYTHON))),--with-this-python)

demo: setup
	@"$(RUN)" -m tools.demo

test: setup
	@"$(RUN)" -m tools.test $(ARGS)

test-oldest: setup
	@"$(RUN)" -m tools.releases --oldest $(ARGS)

test-releases: setup
	@"$(RUN)" -m tools.releases $(ARGS)

# The tests of classifier files with transformers 4 instead of 5.
test-transformers-4: setup
	@"$(RUN)" -m tools.transformers4 $(ARGS)

lint: setup
	@"$(RUN)" -m ruff check
	@"$(RUN)" -m ruff format --check
	@"$(RUN)" -m mypy

serve: setup
	@"$(RUN)" -m tools.serve $(ARGS)

bench: setup
	@"$(RUN)" -m benchmarks $(ARGS)

# What the tests run of the pack, and whether they notice changes of its formulas. Neither is part of `make test`.
.PHONY: coverage mutants
coverage: setup
	@"$(RUN)" -m benchmarks.coverage $(ARGS)
	@"$(RUN)" -m benchmarks.numbers

mutants: setup
	@"$(RUN)" -m benchmarks.mutants $(ARGS)
	@"$(RUN)" -m benchmarks.numbers

# Whether the pack fits your ComfyUI, and what has moved in it.
.PHONY: doctor
doctor: setup
	@"$(RUN)" -m tools.doctor

# Graphs at random, to find what neither draws a picture nor says clearly why not; it goes on where it was stopped.
.PHONY: fuzz
fuzz: setup
	@"$(RUN)" -m benchmarks.fuzzing $(ARGS)
