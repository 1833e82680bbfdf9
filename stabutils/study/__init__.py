"""Retraining one classifier many times, and keeping what it answered."""
