"""What pyproject.toml can't say: the repository's configs travel inside the wheel as ``nas/configs``."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["gemnet", "gemnet.*", "nas", "nas.*"]), "nas.configs"],
    package_dir={"nas.configs": "configs"},
    package_data={
        "gemnet": ["py.typed", "genomes/*.json", "weights/*"],
        "nas": ["py.typed"],
        "nas.configs": ["*.py", "*/*.py", "*/*.json"],
    },
)
