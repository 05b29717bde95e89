"""An RT-DETRv2 with the shape of R18 and untrained weights, as a folder: `fresh.py FOLDER`. It finds nothing, and takes
exactly as long for it as a trained one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

SIDE = 640


def main(folder: Path) -> None:
    torch.manual_seed(18)
    backbone = RTDetrResNetConfig(
        layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512],
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = RTDetrV2Config(
        backbone_config=backbone, use_pretrained_backbone=False, use_timm_backbone=False, backbone=None,
        encoder_in_channels=[128, 256, 512], hidden_expansion=0.5, decoder_layers=3, num_labels=80,
    )  # fmt: skip
    model = RTDetrV2ForObjectDetection(config).eval()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    said = {"do_resize": True, "size": {"height": SIDE, "width": SIDE}, "do_rescale": True, "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
