"""How good the demo model is.

material.py     the tasks of seven conditions
draw.py         a batch of tasks through a pipeline
judge.py        a descriptor, prototypes, rivals
structure.py    layout and fidelity, without the judge
scores.py       from pictures to scores
report.py       table and JSON
strengths.py    style strength against the judge, and its plot
album.py        pictures and contact sheets on disk
showcase.py     the README's contact sheet
"""
