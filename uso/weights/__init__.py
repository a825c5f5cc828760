"""Files on a disk become a pipeline.

flags.py           `--model`, `--memory`, `--device`, and one flag per component
choices.py         which model, device, dtype and memory plan `auto` means
hub/               files on the Hugging Face Hub: cache, download, errors
layouts.py         names in released files and in diffusers
tensor_files.py    safetensors files, read tensor by tensor
checkpoints.py     files become components; the LoRA is folded in
loading.py         load_pipeline
provenance.py      what a picture records of its model
"""
