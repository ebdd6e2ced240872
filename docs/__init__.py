"""A page per task; `generate.py` writes into them what the program says of itself."""
