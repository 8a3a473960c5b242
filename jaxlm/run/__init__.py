"""Floor 7: start-up, the loop, the command line. Every effect that is not a file's is here."""
