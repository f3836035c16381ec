# SPDX-License-Identifier: BSD-2-Clause
"""What results on a GPU depend on, its driver and clocks, as nvidia-smi says them; and their file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

DRIVER = {"driver": "driver_version", "most_sm_mhz": "clocks.max.sm", "most_memory_mhz": "clocks.max.memory"}
CLOCKS = {
    "sm_mhz": "clocks.current.sm",
    "memory_mhz": "clocks.current.memory",
    "watts": "power.draw",
    "celsius": "temperature.gpu",
}


def count_as_nvidia_smi_does() -> None:
    """Several GPUs: by their place, not by their speed. Before anything touches one."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def ask(fields: dict) -> dict:
    """What nvidia-smi says of the GPU in use; where it cannot, why."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    command = ["nvidia-smi", f"--id={gpu}", "--format=csv,noheader,nounits"]
    try:
        run = subprocess.run(
            [*command, f"--query-gpu={','.join(fields.values())}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"nvidia-smi": f"{type(error).__name__}: {error}"}
    said = run.stdout.decode(errors="replace").strip()
    values = [value.strip() for value in said.split(",")]
    if run.returncode != 0 or len(values) != len(fields):
        return {"nvidia-smi": f"exit status {run.returncode}: {said}"}
    return {name: value if name == "driver" else number(value) for name, value in zip(fields, values)}


def number(text: str):
    """A number, or the text where a card does not tell."""
    try:
        return float(text)
    except ValueError:
        return text


def write_whole(path: Path, text: str) -> None:
    """In the place of what was there, at once: a program that is ended meanwhile leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
