"""Corpora, the embedded corpus, and linear models that no seed changes."""
