"""Evaluations: what measures candidates, tables and real trainings, what they cost, and where all of it is kept."""
