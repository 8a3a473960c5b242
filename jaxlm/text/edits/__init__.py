"""Edits: what is taken out of a document, or mended in it, before it is judged."""
