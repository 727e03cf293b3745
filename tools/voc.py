"""Writes Pascal VOC annotations as COCO's JSON; see ``python tools/voc.py --help``."""

import sys
from pathlib import Path

sys.path.pop(0)  # this folder, whose files may have the names of others' modules
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nas.commands.voc import main

if __name__ == "__main__":
    sys.exit(main())
