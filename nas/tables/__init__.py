"""Tabular benchmarks: cells whose accuracies are already known."""
