"""Who may come in: the layers between the network and the page.

stack.py       the layers, from the outside in
hosts.py       `Host` and this machine
identity.py    persons, owners, the browser's cookie
login.py       the login page
accounts.py    the accounts file and tokens
limits.py      requests per second, streams
uploads.py     how much may be uploaded
bodies.py      request bodies
asgi.py        helpers
"""
