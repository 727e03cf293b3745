"""What pyproject.toml can't say: the repository's configs travel inside the wheel as ``gemnet/configs``."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["gemnet", "gemnet.*", "nas", "nas.*"]), "gemnet.configs"],
    package_dir={"gemnet.configs": "configs"},
    package_data={
        "gemnet": ["py.typed", "genomes/*.json", "weights/*", "weights/detectors/*.safetensors"],
        "nas": ["py.typed", "encoder/trained/*", "search/report/*.j2"],
        "gemnet.configs": ["*.py", "*/*.py", "*/*.json", "*/*.safetensors"],
    },
)
