"""Commands that are killed, stopped and denied room, and what is left then."""
