"""Training of one network: the short loop of a search, and mmengine's Runner."""
