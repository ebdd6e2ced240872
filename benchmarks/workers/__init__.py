"""One file per tool: how it trains a step and encodes texts, by its own code."""
