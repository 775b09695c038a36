"""Set-up, server and demo: what the make targets run."""
