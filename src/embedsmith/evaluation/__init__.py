"""Embedder -> results: STS scores with bootstrap intervals. Knows embeddings as arrays, no model."""
