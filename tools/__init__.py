"""Command-line tools that are no training run."""
