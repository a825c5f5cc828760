"""The whole server under load, under kill and under attack; each module is a command, and `BENCHMARKS.md` has figures.

These tools start the real program on the demo model, in folders of their own. None of it is imported by the program.
"""
