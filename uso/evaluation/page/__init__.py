"""The report of measured pictures.

report.py    what is in it; report.md and report.html
tables.py    figures as rows, with the paper's beside
plots.py     intervals and subjects as SVG, by matplotlib
sheets.py    pictures of each task: best, worst, and seeds side by side
html.py      one page with everything inside
"""
