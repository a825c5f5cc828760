"""Triplets and captions for a folder of pictures, by expert models.

config.py     which experts
models.py     the experts' models
experts.py    stylise, de-stylise, filter
captions.py   captions by a vision-language model
"""
