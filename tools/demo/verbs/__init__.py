"""The verbs of `python -m tools.demo`. Nothing heavy is imported before a verb runs.

data.py        draw training data
sheet.py       a contact sheet of the drawn data
part.py        train one part of the model
stage.py       train projector and LoRA
reader.py      train image encoder and projector together
mean.py        the mean of two runs' weights
evaluate.py    measure a model
showcase.py    write assets/demo-sheet.webp
strengths.py   measure the style strength
"""
