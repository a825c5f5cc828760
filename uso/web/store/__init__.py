"""What outlives the process.

ledger.py     jobs and pictures, in SQLite
schema.py     its tables, and those of earlier versions
instance.py   which servers at an output folder still run
recovery.py   what servers left that ended without a word
history.py    pictures and jobs as their owner sees them again
deletion.py   deletes pictures for good
archive.py    pictures as a zip file
presets.py    the fields of the page under names
styles.py     saved styles, a shelf for each owner and a shared one
prune.py      removes pictures that are too old or too much
uploads.py    the folder of uploaded files
upkeep.py     repeats a task in a thread
"""
