"""`python -m uso VERB`. A verb is a file: its arguments and what it runs.

main.py             the list of verbs; errors become exit statuses
generate.py         one request, or on to `batch.py` or `remote.py`
batch.py            a file of jobs, over several processes
remote.py           the same request, made by a running server
remote_server.py    how that server is spoken to
request.py          what these share: flags and records become a request
info.py models.py download.py memory.py bench.py train.py account.py
"""

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses: some jobs failed; refused, nothing was done; Ctrl-C, as shells count it (128 + SIGINT)."""
