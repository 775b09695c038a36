"""Whether a server that runs for long grows: its memory, tensors, files and threads over a thousand prompts."""
