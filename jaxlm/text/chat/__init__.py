"""Conversations: messages, templates that write them as text, and the tokens with what the model must say marked."""
