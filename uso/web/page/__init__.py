"""What people see.

layout.py      components, and the events they trigger
inputs.py      the input fields
examples.py    examples, and prompts to try
events/        what happens on a click
compare.py     two pictures compared
styles.py      saved styles
kept/          "Your pictures", earlier prompts, presets
restore.py     a picture's settings, back into the fields
html.py        pieces of HTML
record.py      how a picture was made
labels.py      texts that the browser translates
renditions.py  thumbnails of images that browsers cannot show
texts.py       what examples and tips say
scripts.py     JavaScript
theme.py       colours and type
static/        CSS, one file for each part of the page
gradio_fit.py    everything that is patched in Gradio
"""
