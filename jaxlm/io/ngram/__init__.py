"""Files of n-gram models: word vocabularies and texts, ARPA, model directories, sorting on disk."""
