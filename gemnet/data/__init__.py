"""Image sets: folders, the decoded cache, splits, and the log of opened test images."""
