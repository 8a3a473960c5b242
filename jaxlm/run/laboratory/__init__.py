"""The laboratory: small models in which abilities come, or do not, while one watches (`docs/laboratory.md`)."""
