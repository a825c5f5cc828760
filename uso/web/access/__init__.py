"""Who may use the server, and how much: the layers between the network and the page.

stack.py       the stack of layers; request ids, response headers, errors, trusted proxies
hosts.py       `Host` and `Origin`
identity.py    persons, owners, the browser's cookie
login.py       the login page
accounts.py    the file of accounts
tokens.py      signatures, and the tokens of logins
limits.py      the window that every limit counts with; requests and streams
uploads.py     how much may be uploaded
bodies.py      request bodies: size, uploads, routes that are closed
contents.py    what a JSON body holds, counted before it is parsed
asgi.py        helpers
"""
