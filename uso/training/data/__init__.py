"""Training data: rows of a JSON-lines file, their checker, and the two makers of triplets. No training here."""
