"""The whole server under load, kill and attack. Each module is a command; `docs/memory-and-speed.md` has figures.

These tools start the real program on the demo model, in folders of their own. None of it is imported by the program.
"""
