"""What lies in weights files.

headers.py         names, shapes and types of a file's tensors; incomplete files are refused
kinds.py           what a file is, by its tensors
layouts.py         names in released files and in diffusers
tensor_files.py    tensors, read and dequantised one by one
loras.py           LoRA files as changes of weights
"""
