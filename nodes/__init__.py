"""The menu: one node of ComfyUI a file, a schema and a call. `common` is what nodes share; their machinery is in the folders."""
