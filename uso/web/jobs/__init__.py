"""What waits and runs. No page and no torch.

job.py              a job and its status
admission.py        whether a request is taken now
queue.py            the queue and its workers
fair_queue.py       whose turn it is
worker.py           the thread that owns a model
time_estimate.py    how long a picture takes here
followers.py        jobs that nobody follows any more
safety.py           the owner's filter
"""
