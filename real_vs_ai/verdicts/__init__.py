"""Turn probabilities into verdicts: thresholds, labels with reasons, conclusions, track records."""
