"""Floor 1: the mechanism of sharding: meshes, rules -> PartitionSpecs, optimiser states, constraints."""
