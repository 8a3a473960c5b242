"""Floor 6, the effects: corpora, tokenizer files, token datasets, checkpoints, metrics and reports."""
