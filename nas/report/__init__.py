"""What a search shows: progress, table and pictures."""
