"""A folder with safetensors made into ONNX: `python -I export.py FOLDER FILE.onnx`, where torch and transformers are.

It stands alone, because the environment that runs it need not have Corral.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

OPSET = 16


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        sys.stderr.write("usage: export.py FOLDER FILE.onnx\n")
        return 64
    folder, target = Path(argv[0]), Path(argv[1])
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    warnings.filterwarnings("ignore")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # what is half written goes first
    export(folder, target)
    return 0


def export(folder: Path, target: Path) -> None:
    """Writes `target` whole or not at all."""
    import json

    import torch
    from transformers import RTDetrV2ForObjectDetection

    class Plain(torch.nn.Module):  # type: ignore[misc]
        """The model with a tuple of tensors for an answer."""

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> tuple[Any, Any]:
            out = self.model(pixel_values=pixel_values, return_dict=True)
            return out.logits, out.pred_boxes

    model = RTDetrV2ForObjectDetection.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    size = json.loads((folder / "preprocessor_config.json").read_text())["size"]
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with torch.no_grad():
            torch.onnx.export(
                Plain(model.eval()).eval(),
                (torch.rand(2, 3, size["height"], size["width"]),),
                str(part),
                input_names=["pixel_values"],
                output_names=["logits", "pred_boxes"],
                dynamic_axes={name: {0: "batch"} for name in ("pixel_values", "logits", "pred_boxes")},
                opset_version=OPSET,
                dynamo=False,
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Removes what exports of the same model left that were killed."""
    for left in target.parent.glob(f"{target.name}.*.part"):
        try:
            os.kill(int(left.name.split(".")[-2]), 0)
        except ProcessLookupError:
            left.unlink(missing_ok=True)
        except (ValueError, PermissionError):
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
