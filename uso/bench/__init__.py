"""How fast a request is, and with how much memory.

modes.py           kinds of request
measure.py         runs side by side, one line of figures each
first.py           the first pictures of a page, while blocks are compiled behind them
runs.py            one request through the pipeline, timed by stage and step
baseline.py        the baseline: diffusers' stock transformer
request.py         the request that is timed: a mode at a size, with drawn inputs
machine.py         clock, matrix rate and link rate of this machine
random_model.py    a model of full size with random weights
flops.py           operations of a step
"""
