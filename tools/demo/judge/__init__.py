"""How good the demo model is.

material.py     the tasks of all conditions
draw.py         a batch of tasks through a pipeline
judge.py        a descriptor, prototypes, rivals
parameters.py   a style's parameters against others of the same style, without the judge
structure.py    layout and fidelity, without the judge
scores.py       from pictures to scores
intervals.py    shares of pictures that share styles and subjects
report.py       table and JSON
strengths.py    style strength against the judge, and its plot
album.py        pictures and contact sheets on disk
showcase.py     the README's contact sheet
"""
