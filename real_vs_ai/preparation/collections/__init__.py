"""Collect public collections of pictures from git, for DataCollector.py."""
