"""Fused decoder: the layers of a frozen model as few products and one pass between them; start with decoder.py."""
