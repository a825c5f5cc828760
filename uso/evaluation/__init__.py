"""How good a model is.

report.py    figures with intervals, tables
sheet.py     contact sheets
metrics/     descriptors
"""
