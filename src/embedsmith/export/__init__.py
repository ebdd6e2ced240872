"""embedder -> other tools."""
