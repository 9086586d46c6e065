"""Train a model on labelled folders."""
