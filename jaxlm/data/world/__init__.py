"""A made-up world in plain words, all of it a function of a seed: towns with facts, tasks with one right answer each,
text to pretrain on, conversations, rankings and prompts (`docs/align.md`)."""
