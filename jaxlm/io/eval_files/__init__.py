"""Files of evaluations: published task files, and what models wrote or were judged by."""
