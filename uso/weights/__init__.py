"""Files on a disk become a pipeline.

flags.py          `--model`, `--weights`, `--add-lora`, `--memory`, `--device`, and one flag per component
few_steps.py      steps, guidance and strength of LoRAs that distil a model
automatic.py      which model `auto` means, as far as that is known without torch
choices.py        which model, device, dtype and memory plan `auto` means
hub/              files on the Hugging Face Hub: cache, download, errors
finder.py         what folders of weights hold
selection.py      which of these files a model uses
formats/          what lies in weights files, and how it is read
checkpoints.py    files become components
filling.py        parameters from files, LoRAs folded in
assembly.py       components become a pipeline, checked against each other
loading.py        load_pipeline
provenance.py     what a picture records of its model
"""
