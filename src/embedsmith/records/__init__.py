"""Plain records that pass between the rooms."""
