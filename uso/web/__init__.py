"""The page in a browser and the server around it: many people, one queue, workers that own the models.

settings.py    every option of the server, and its flag
gradio_import.py    Gradio's first import
server/    port, start-up answers, application, shutdown, metrics
access/    who may use it, and how much
jobs/      queued and running jobs; no page, no torch
store/     what outlives the process
api/       what page and programs both call
page/      what people see
"""
