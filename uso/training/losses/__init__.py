"""What a step minimises.

flow.py       rectified flow
network.py    the pipeline's stages on training batches
guided.py     guidance that a run learns from itself
reward.py     style reward
seeds.py      random numbers by purpose and place
"""
