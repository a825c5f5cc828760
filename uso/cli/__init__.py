"""`python -m uso VERB`. A verb is a file: its arguments and what it runs."""
