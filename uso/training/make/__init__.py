"""Triplets out of a folder of pictures, by expert models.

command.py    the verb `train.data`
config.py     which experts
models.py     the experts' models
experts.py    stylise, de-stylise, filter
"""
