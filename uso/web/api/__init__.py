"""What page and programs both call.

calls.py        raw values become a job, and its news
endpoints.py    /generate, /status, /cancel
mcp.py          the same as tools for assistants
"""
