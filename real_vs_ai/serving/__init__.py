"""From a model file and images to verdicts, evidence and explanations."""
