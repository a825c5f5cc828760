"""What the page and programs both call.

calls.py        from raw values to a job and its status
files.py        uploads as images, copies of pictures
handlers.py     errors as sentences, in the caller's language
turns.py        threads that people take turns at
endpoints.py    /generate, /status, /cancel
downloads.py    pictures as a zip file
messages.py     what a job is doing, as a sentence
mcp.py          the endpoints as tools for assistants
"""
