"""`python -m uso VERB`. A verb is a file: its arguments and what it runs.

main.py             the list of verbs; errors become exit statuses
generate.py         one request here, or on to `batch.py` or `remote.py`
batch.py            a file of jobs, over several processes
remote.py           the same request, made by a running server
remote_server.py    the client of that server
request.py          what these share: flags and records become a request
info.py             what a picture records
models.py           which models there are
inspect.py          what a weights file is
download.py         fetch a model's weights
memory.py           what memory a request will need
bench.py            measure this machine
train.py            train projector and LoRA
train_data.py       make and check training data
account.py          who may use the server
"""

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses: some jobs failed; refused, nothing was done; Ctrl-C, as shells count it (128 + SIGINT)."""
