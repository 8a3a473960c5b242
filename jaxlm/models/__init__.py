"""Floor 2: models as bundles of pure functions, each with the sharding rules of its own parameters."""
