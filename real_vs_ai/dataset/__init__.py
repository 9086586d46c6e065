"""Labelled images, listed and decoded for training and evaluation."""
