"""Tuning to conversations and preferences: what a base is, what is trained of it, and the commands."""
