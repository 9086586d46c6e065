"""From labelled folders to a trained, evaluated and documented model."""
