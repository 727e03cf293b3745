"""Comparing networks fairly: one recipe for all, the learning rate chosen for each alike, paired seeds, an interval.

``config`` says what is compared, ``networks`` makes networks of it (``peers``: others' networks at the reference's
MACs; ``controls``: random and rewired cells), ``trainings`` trains one, ``run`` trains all, ``report`` and ``picture``
say what came of it.
"""
