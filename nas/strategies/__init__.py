"""Search strategies, all behind the same ask and tell."""
