"""The server process: port, answers during start-up, application, shutdown, metrics.

port.py          the port, taken before anything slow is imported
connections.py   how many connections there may be, and their deadlines
process.py       uvicorn, signals, the end
starting.py      answers until the application is built
app.py           routes, the mounted page, the access stack before both
metrics.py       metrics for Prometheus, and a log line for each job
"""
