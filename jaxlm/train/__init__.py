"""Floor 4: the train state, the one train step, and the objectives that it serves."""
