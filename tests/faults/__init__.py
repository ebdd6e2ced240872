"""Faulty input of every kind, in one table: each row ends in exit code 2, a place and a cure, and changes nothing."""
