"""How much memory a network needs: measured in a process of its own, which this file also is.

python -m gemnet.runtimes.peak_memory '{"file": "net.onnx", "shape": [1, 3, 224, 224], "backend": "onnxruntime", ...}'
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from gemnet.runtimes.latency import Runtime

CALLS = 3


def peak_memory(file: Path, shape: tuple[int, int, int, int], runtime: Runtime) -> float | None:
    """MiB that loading a network and running it takes at the most; None where the system doesn't tell.

    Args:
        file: ``.onnx``, or ``.pt2`` as ``torch.export.save`` writes it.
        shape: of the images.
        runtime: what runs it.
    """
    task = json.dumps({"file": str(file), "shape": shape, "runtime": asdict(runtime)})
    done = subprocess.run([sys.executable, "-m", "gemnet.runtimes.peak_memory", task], capture_output=True, text=True)
    try:
        return float(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return None


def _measured(file: Path, shape: tuple[int, int, int, int], runtime: Runtime) -> float:
    before = _reset()
    model = torch.export.load(file).module() if file.suffix == ".pt2" else file
    call = runtime.call(model, shape)
    for _ in range(CALLS):
        call()
    if torch.device(runtime.device).type == "cuda":
        return torch.cuda.max_memory_allocated(runtime.device) / 2**20
    return (_status("VmHWM") - before) / 2**10


def _reset() -> int:
    """Forgets the peak so far (Linux); returns what is resident now, in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {key}")


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["runtime"]["threads"])
    print(_measured(Path(task["file"]), tuple(task["shape"]), Runtime(**task["runtime"])))
