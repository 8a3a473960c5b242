"""Instructions whose following can be checked by a program: constraints, their grading, prompts made of them."""
