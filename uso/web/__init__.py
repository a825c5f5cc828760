"""The page in a browser: an engine that owns the model, the page itself, and the server around both.

engine.py      one thread, one model, a queue of jobs; knows nothing of pages and servers, imports no torch itself
texts.py       what the page says that is not computed: tips, examples
snippets.py    small pieces of HTML, everything in them escaped
page.py        the layout; handlers.py: what happens when somebody does something on it
server.py      routes, the mounted page, and how the process ends
"""
