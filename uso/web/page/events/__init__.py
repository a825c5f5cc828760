"""What happens when somebody does something on the page. The endpoints for programs are in `api/endpoints.py`.

jobs.py        Generate, Stop, and the stream that follows a tab's jobs
inputs.py      the fields: checks of images, examples, what comes back after a reload
pictures.py    the pictures that are made: shown, used again

Every job goes through `api/calls.py`. Ids of jobs, tabs and pictures come from the browser, so each is checked for its
owner (`store/history.py`): whoever sends another person's id gets nothing.
"""
