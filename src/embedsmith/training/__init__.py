"""Embeddings -> adapter: contrastive loss, batches without false negatives, an open loop, exact checkpoints."""
