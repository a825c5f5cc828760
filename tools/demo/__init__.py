"""The demo model's factory: drawn training data, its parts' trainers, its judge. See README.md."""
