"""The search: its config and folder, how it begins, explores and ends, and what it shows."""
