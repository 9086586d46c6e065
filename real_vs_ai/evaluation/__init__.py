"""Measure a model: predictions, metrics, calibration, figures, model card and export."""
