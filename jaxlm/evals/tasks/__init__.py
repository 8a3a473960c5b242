"""Tasks as plain values: items, how they are put, how they are scored, one small module for each kind."""
