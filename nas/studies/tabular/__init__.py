"""Benchmarks of predictors and searches on tables: protocols, statistics, plots."""
