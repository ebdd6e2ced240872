"""embedder -> HTTP: an OpenAI-compatible server that computes the texts of many clients together."""
