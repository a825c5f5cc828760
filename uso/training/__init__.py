"""Training: data, losses and runs. The pipeline never imports this package."""
