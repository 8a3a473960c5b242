"""``python -m tools.versus nanogpt | recurrent | kenlm``: ours against a peer on one machine, in turns."""
