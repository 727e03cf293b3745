"""Predictors: from features of candidates to the mean and deviation of what they may score."""
