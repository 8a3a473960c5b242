"""Floor 5: what a model can do, as pure functions: likelihoods of tokens, and properties of the text it writes."""
