"""What learns and what is frozen.

load.py        the pipeline that a run begins with
sharing.py     one copy of it for all processes of a machine
adapters.py    projector, LoRA, transformer: the parameters that learn
quantized.py   a frozen base in 8 or 4 bits
shard.py       a frozen base shared out among processes
export.py      files in the released layouts
"""
