"""Floor 1: what can be said about text alone: the tokenizer protocol, cutting, hashing and copies."""
