"""A corpus is built: collected, cleaned, deduplicated, decontaminated, mixed and written, stage by stage."""
