# make demo: from nothing to a picture.   make test: the whole test suite.   make serve: ComfyUI in a browser.
# COMFYUI_PATH and COMFYUI_PYTHON use a ComfyUI of your own and install nothing.

PYTHON ?= python3
RUN = $(if $(COMFYUI_PYTHON),$(COMFYUI_PYTHON),.dev/venv/bin/python)

.PHONY: setup demo test serve bench
setup:
	@$(PYTHON) tools/setup.py

demo: setup
	@$(RUN) tools/demo.py

test: setup
	@$(RUN) -m pytest tests

serve: setup
	@$(RUN) tools/serve.py

bench: setup
	@$(RUN) -m benchmarks
