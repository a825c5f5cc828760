"""What learns and what is frozen.

load.py        the pipeline as training wants it
learners.py    projector, LoRA, transformer
adapters.py    the LoRA
int8.py        a frozen base in 8 bits
export.py      files in the released layouts
"""
