"""FLUX's transformer as USO runs it: diffusers' own class with single parts exchanged.

exchange.py            which parts are exchanged, and how the stock transformer comes back for saving
context_embedder.py    text and style projections: the context that the transformer reads
modulation.py          modulation rows, computed once per request
attention.py           style strengths as a bias; queries and keys rotated in one pass, or multiplied in int8
eager.py               blocks that are not compiled, in fewer passes over memory
compile.py             attention backends and compiled blocks
behind.py              blocks that are compiled behind the pictures that eager ones make
int8.py fp8.py         blocks in reduced precision, for `--speed fast`
operators.py           custom operators behind them, with a plain PyTorch form
kernels.py             the operators' Triton kernels, imported on CUDA only
"""
