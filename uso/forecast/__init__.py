"""What a request will need, from shapes alone: no weights are read, nothing is computed.

forecast.py       memory by stage, and whether a request fits a plan
meta_model.py     a model's pipeline on the meta device, where requests are traced
live_memory.py    counts the bytes of live tensors
empty_model.py    a pipeline without weights
"""
