"""Texts -> embeddings: tokens -> packing -> backbone (+ adapter) -> pooling, composed once, in `embedder.py`.

Shape letters: B triplets in a batch, N tokens in a packed row, K texts, H hidden width, D embedding width.
"""

from embedsmith.support.libraries import defer_bitsandbytes

defer_bitsandbytes()
