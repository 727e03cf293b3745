"""Evidence about searches and networks: on tables, beside other networks, inside detectors, by ranking."""
