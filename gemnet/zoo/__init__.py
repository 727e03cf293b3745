"""The model zoo: weights in the package, and tables, metafile and cards made from result files.

``results`` is the record of a figure and where it stands in a log, ``publish`` puts weights into the package,
``measure`` finds accuracy and CPU time of what is published, ``tables`` and ``cards`` write what people read, ``check``
says where files, figures and logs disagree, ``folder`` makes a Hugging Face style folder and pushes it to a hub.
"""
