"""A run: its steps, checkpoints and logs.

trainer.py       losses, gradients, validation
run.py           the loop itself: limits, checkpoints, signals
optimizer.py     AdamW, 8-bit AdamW, learning rate, running mean
precision.py     number formats, compiled blocks
checkpoint.py    checkpoints, written and read
log.py           metrics.jsonl, TensorBoard
pictures.py      validation pictures
"""
