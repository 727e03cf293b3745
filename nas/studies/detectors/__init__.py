"""Backbones compared inside detectors: every detector trained on every backbone alike, with the same seeds.

`config` says what is compared, `run` trains and tests, `costs` measures what a trained detector takes, `report` and
`picture` show what came of it. The command is the one that compares classifiers, `tools/compare.py`.
"""
