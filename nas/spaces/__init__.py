"""Search spaces: what may be searched, and how to move in it."""
