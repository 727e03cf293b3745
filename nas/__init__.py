"""The search: spaces, WL-guided embedding, predictor, strategies, evaluators and the loop that joins them."""
