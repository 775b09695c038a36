"""The menu: one node of ComfyUI a file, a schema and a call. What nodes share is in `common`, machinery in a folder each subject."""
