"""Floor 1: losses as sums and counts. Each returns Terms; the train step divides once, by the global count."""
