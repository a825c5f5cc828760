"""Files on a disk become a pipeline.

flags.py           `--model`, `--weights`, `--add-lora`, `--memory`, `--device`, and one flag per component
choices.py         which model, device, dtype and memory plan `auto` means
hub/               files on the Hugging Face Hub: cache, download, errors
headers.py         names, shapes and types of a file's tensors; incomplete files are refused
kinds.py           what a file is, by its tensors
finder.py          a model's components in folders of weights
layouts.py         names in released files and in diffusers
tensor_files.py    weights files, read and dequantised tensor by tensor
loras.py           LoRA files as changes of weights
checkpoints.py     files become components; LoRAs are folded in
assembly.py        components become a pipeline, checked against each other
loading.py         load_pipeline
provenance.py      what a picture records of its model
"""
