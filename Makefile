# make demo: from nothing to a picture.   make test: the whole test suite.   make serve: ComfyUI in a browser.
# COMFYUI_PATH and COMFYUI_PYTHON use a ComfyUI of your own and install nothing.

PYTHON ?= python3
RUN = $(if $(COMFYUI_PYTHON),$(COMFYUI_PYTHON),.dev/venv/bin/python)

.PHONY: setup demo test serve bench
setup:
	@$(PYTHON) -m tools.setup

demo: setup
	@$(RUN) -m tools.demo

test: setup
	@$(RUN) -m tools.test

serve: setup
	@$(RUN) -m tools.serve $(ARGS)

bench: setup
	@$(RUN) -m benchmarks
