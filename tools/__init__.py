"""Development tools: they write files of `assets/`. Nothing here is imported by the program."""
