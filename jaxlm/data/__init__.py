"""Floor 2: documents to rows to batches, as index maps: pure functions over NumPy arrays, without files or state."""
