"""What weights files contain.

headers.py         names, shapes and types of a file's tensors; incomplete files are refused
kinds.py           which components a file holds, by its tensors
relatives.py       how related models with the same names or shapes differ
layouts.py         names in released files and in diffusers
tensor_files.py    tensors, read and dequantised one by one
loras.py           LoRA files of other programs
patches.py         what LoRAs add to weights
"""
