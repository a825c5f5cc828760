"""Files on a disk become a pipeline.

loading.py         `load_pipeline`: find, load, place, tune
assembly.py        located files become components, and these a pipeline
checkpoints.py     one component from its files; the LoRA is folded in
layouts.py         names in released files and in diffusers
tensor_files.py    safetensors files, read tensor by tensor
choices.py         which model, device, dtype and memory plan `auto` means
flags.py           `--model`, `--memory`, `--device`, and one flag per component
provenance.py      what a picture records of its model
hub/               files on the Hugging Face Hub: cache, download, errors
"""
