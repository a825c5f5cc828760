"""`python -m uso VERB`. A verb is a file: its arguments and what it runs.

main.py             the list of verbs; errors become exit statuses
pictures/           the verb `generate`: one request, a batch file, or a running server
info.py             what a picture records
style.py            save styles under names
models.py           which models there are
inspect.py          what a weights file is
download.py         fetch a model's weights
memory.py           what memory a request will need
bench.py            measure this machine
evaluate.py         measure how good a model is
train.py            train projector and LoRA
train_data.py       make and check training data
account.py          who may use the server
"""

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses: some jobs failed; refused, nothing was done; Ctrl-C, as shells count it (128 + SIGINT)."""
