"""The page in a browser and the server around it: many people, one queue, workers that own the models.

settings.py flags.py    how the server was asked to behave
server/    how it listens, answers first, is put together, counts
access/    who may come in, and how much
jobs/      what waits and runs; no page, no torch
store/     what outlives the process
api/       what page and programs both call
page/      what people see
"""
