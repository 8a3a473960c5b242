"""Floor 1: learning-rate schedules, optimisers and what guards them."""
