"""How the pack draws: matplotlib behind one function."""
