"""Where weights are while the pipeline runs: on the device, on the host, or on their way.

plan.py         the arithmetic of a memory plan: how many blocks stay on the device
sizes.py        bytes of a pipeline's parts, and whether the host has room for them
residency.py    keeps the weights within a plan, stage by stage
streaming.py    blocks that stream from page-locked host memory
device.py       what a device reports: free memory, failures, its name
"""
