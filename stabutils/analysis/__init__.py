"""What the answers of a study mean: boards, ensembles, regions, sources."""
