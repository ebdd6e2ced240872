"""A packed row through the decoder layers."""
