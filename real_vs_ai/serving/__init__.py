"""Turn a model file and images into verdicts, evidence and explanations."""
