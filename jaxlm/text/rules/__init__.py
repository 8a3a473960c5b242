"""Rules: what makes a document worth keeping, judged over a batch at once."""
