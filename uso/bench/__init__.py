"""How fast a request is, and with how much memory.

bench.py           times stages and steps
measure.py         the verb `bench`: runs side by side, one JSON line each
random_model.py    a model of full size with random weights
flops.py           operations of a step
"""
