"""Training: the short one of a search, the longer one of a whole network, and mmengine's Runner."""
