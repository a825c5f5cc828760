"""What people see.

layout.py     components and what they are wired to
events.py     what happens on a click
restore.py    a picture's settings back into the fields
html.py history_html.py    pieces of HTML
texts.py      words, examples, tips
scripts.py    JavaScript
theme.py page.css    colours and shapes
"""
