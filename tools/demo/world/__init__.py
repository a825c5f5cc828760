"""The drawn world.

subjects.py unnamed_subjects.py    emoji
places.py sketch.py                backgrounds
scenes.py                          a subject in a place, and its words
styles/ brush.py                   36 styles, a grammar of styles without names, and what they paint with
shapes.py                          pictures that are not square
triplets.py                        samples by seed, split and index
pictures.py                        contact sheets
"""
