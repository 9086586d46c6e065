"""The HTTP service for programs, which ApiServer.py starts."""
