"""Examples from start to end, run from the repository."""
