"""Graphs at random from the schemas of the nodes, run by ComfyUI's own executor: `make fuzz`.

`values.py` makes the values of one input, `wiring.py` graphs of them, `executor.py` runs a graph, `outcome.py` judges what came
of it, and `state.py` whether the process is as before. A new node or input takes part without a word here.
"""
