"""Training of the projector and the LoRA.

config.py         the settings of a run: a YAML file of configs/training/
config_files.py   YAML files with overrides
command.py        what the verb `train` runs
prepare.py        checks, data and features before the first step
plugins.py        what a config names by module:function
data/             rows become batches
model/            what learns, what is frozen, export
losses/           flow, teacher, style reward
loop/             steps, checkpoints, logs, validation pictures
forecast.py activations.py    memory and time from shapes, `--dry-run`
bench.py          steps timed on random weights, `--bench`
make/             triplets out of a folder of pictures
"""
