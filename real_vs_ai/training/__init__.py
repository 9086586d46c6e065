"""Train, evaluate and document a model from labelled folders."""
