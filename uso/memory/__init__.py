"""Where weights are while the pipeline runs: on the device, on the host, or on their way.

plan.py         the arithmetic of a memory plan: how many blocks stay
residency.py    moves components to the device and back
streaming.py    transformer blocks from page-locked host memory
"""
