"""The pages that App.py puts together."""
