"""Serve verdicts over HTTP to programs; ApiServer.py starts it."""
