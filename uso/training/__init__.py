"""The projector and the LoRA are learned here.

config.py         what a run is: a YAML file of configs/training/
command.py        the verb `train`
data/             rows become batches
model/            what learns, what is frozen, files in and out
losses/           flow, guidance, style reward
loop/             steps, checkpoints, logs, validation pictures
forecast.py activations.py    memory and time from shapes, `--dry-run`
bench.py          steps timed on random weights, `--bench`
make/             triplets out of a folder of pictures
"""
