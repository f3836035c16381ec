# SPDX-License-Identifier: BSD-2-Clause
"""What results on a GPU depend on: its driver and clocks, as nvidia-smi says them."""

from __future__ import annotations

import os
import subprocess

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
