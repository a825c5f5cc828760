"""The version of this program: in packages, on the command line, in every picture's record."""

__version__ = "0.1.0"
