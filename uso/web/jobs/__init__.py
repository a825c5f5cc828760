"""Queued and running jobs. No page and no torch.

job.py              a job, its status, and the protocols of pipeline and ledger
admission.py        the limits on new requests
queue.py            the queue: admits, finds and cancels jobs
dispatcher.py       what the workers take next, and what becomes of it; shutdown
job_index.py        jobs by their ids and tabs
errands.py          what a model is asked to do between two jobs
fair_queue.py       which job is next, and when each will start
worker.py           one worker: loads a model and runs one job at a time
saving.py           a thread beside each worker's, which saves what it has made
time_estimate.py    how long a picture takes on this machine
followers.py        who follows which job; jobs without followers are given up
safety.py           the filter of the server's owner
"""
