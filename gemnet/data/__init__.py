"""Images: data sets in memory, folders too large for it, mixing of batches."""
