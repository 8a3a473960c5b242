"""Floor 1: the parts of networks (linen modules and pure functions): linear, norm, rope, attention, mlp, dropout."""
