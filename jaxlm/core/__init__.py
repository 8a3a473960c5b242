"""Floor 0: types, keys, masks, trees, dtypes and errors that every other floor may use."""
