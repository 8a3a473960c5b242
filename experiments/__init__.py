"""One thin script per stage of a model's life: ``python -m experiments.STAGE``. LOG.md says what was run and found."""
