"""Floor 3: what a model and a run cost, counted before anything is compiled: parameters, FLOPs, memory."""
