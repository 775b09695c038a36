"""What guidance did in a sampling: seen while it runs, kept for a graph, and drawn."""
