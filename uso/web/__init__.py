"""The page in a browser and the server around it: many people, one line, workers that own the models.

settings.py flags.py   how the server was asked to behave
boot.py port.py process.py   answers from the first moment, how it listens, how it ends
guard.py hosts.py crowd.py bodies.py uploads.py   the layers before the page, and what is let through
identity.py login.py accounts.py safety.py asgi.py   who asks, and a filter of the owner's own
server.py              routes, the mounted page, the guard before both
engine.py worker.py line.py door.py pace.py jobs.py   jobs and their turns; no page, no torch
ledger.py prune.py scratch.py   what outlives the process, and what is cleared away
telemetry.py           numbers for Prometheus, a log line for each job
desk.py                from raw values to a job and its news
page.py handlers.py history.py restore.py   what people see and do
album.py snippets.py scripts.py texts.py theme.py   how it looks and what it says
programs.py mcp.py     what programs may call
"""
