"""What a request will need, from shapes alone: no weights are read and nothing is computed.

forecast.py       memory by stage, and whether it fits a plan
meta_model.py     the pipeline on the meta device
live_memory.py    counts the bytes that are alive
empty_model.py    a pipeline without weights
"""
