"""Text -> triplets and scored pairs: files, hub datasets, labelled NLI pairs, the built-in sample. No torch here."""
