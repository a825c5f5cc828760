"""What outlives the process.

ledger.py     jobs and pictures, SQLite
history.py    a person's own pictures
prune.py      what is too old or too much
uploads.py    uploaded files
"""
