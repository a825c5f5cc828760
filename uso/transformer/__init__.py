"""FLUX's transformer as USO runs it: diffusers' own class with single parts exchanged.

context_embedder.py    text and style projections; what the transformer reads as context
exchange.py            which parts of the transformer are replaced, and back again for saving
modulation.py          modulation rows computed once per request
attention.py           queries and keys normalised and rotated
compile.py             compiled blocks and attention backends
int8.py fp8.py         reduced precision, `--speed fast`
kernels.py             Triton kernels and the custom operators around them
"""
