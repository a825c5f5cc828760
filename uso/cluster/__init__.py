"""Workers on other machines, or in other processes of this one, through Ray. Optional: Ray is not imported unless
`--workers` asks for it.

address.py          `--workers`: parsed and checked, without Ray
wire.py             requests, progress, pictures and errors as plain values
door.py             the Ray actor, which needs nothing of this program on the head
host.py             behind the door: one pipeline on one GPU
cluster.py          the connection to a cluster: made, lost, made again
reasons.py          what Ray's errors mean, as sentences
head.py             a cluster of this machine alone, as a child process
pipeline.py         a worker's pipeline, seen from the page
loading.py          from a free GPU to such a pipeline
"""
