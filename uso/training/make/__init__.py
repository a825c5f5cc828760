"""Triplets out of a folder of pictures, by expert models.

config.py     which experts
models.py     the experts' models
experts.py    stylise, de-stylise, filter
"""
