"""Floor 1: laws over numbers alone (planned): what a small run says of a large one."""
