"""Backbones compared inside detectors: every detector trained on every backbone alike, with the same seeds.

`config` says what is compared, `run` trains and tests, `report` and `picture` show what came of it;
`gemnet.detection.costs` measures what a trained detector takes. The command is the one that compares classifiers,
`tools/compare.py`.
"""
