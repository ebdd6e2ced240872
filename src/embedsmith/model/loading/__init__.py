"""MODEL -> a frozen backbone, its tokenizer, its adapter, and how it embeds."""
