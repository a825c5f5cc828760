"""The verb `generate`.

generate.py         its flags; one request here, or on to `batch.py` or `remote.py`
batch.py            a file of jobs, over several processes
elsewhere.py        the same jobs, over the workers of a cluster
remote.py           the same request, made by a running server
remote_server.py    the client of that server
request.py          what these share: flags and records become a request
"""
