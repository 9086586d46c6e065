"""Build the pages that App.py shows."""
