"""Trains the tests' detector: a tiny RT-DETRv2 that finds the shapes of `shapes`, written as a Hugging Face folder.

`python tools/train_detector/train.py FOLDER`, in the environment that `make vision` makes; then
`python -I src/corral/detector/export.py FOLDER FOLDER/model.onnx`. The seeds are fixed: on the same machine, with one
thread and the same versions, the same weights come out. 1600 steps take some 6 minutes of one processor.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from support.shapes import LABELS, Scene, draw

SIDE = 96
BATCH = 12
TEST_SEED = 1 << 40
PREPROCESSING = {
    "image_processor_type": "RTDetrImageProcessor",
    "do_resize": True,
    "size": {"height": SIDE, "width": SIDE},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": False,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_pad": False,
    "do_convert_annotations": True,
    "format": "coco_detection",
}


def tiny() -> RTDetrV2Config:
    """Large enough to find three kinds of shapes, small enough to be kept beside the tests."""
    backbone = RTDetrResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    return RTDetrV2Config(
        backbone_config=backbone, use_pretrained_backbone=False, use_timm_backbone=False, backbone=None,
        encoder_hidden_dim=32, encoder_in_channels=[32, 48, 64], encoder_ffn_dim=64, encoder_attention_heads=4,
        hidden_expansion=0.5, d_model=32, num_queries=20, decoder_in_channels=[32, 32, 32], decoder_ffn_dim=64,
        decoder_layers=2, decoder_attention_heads=4, decoder_n_points=4, num_denoising=20,
        id2label=dict(enumerate(LABELS)), label2id={name: number for number, name in enumerate(LABELS)},
    )  # fmt: skip


def pixels(scenes: list[Scene]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(each.image, np.float32).transpose(2, 0, 1) / 255 for each in scenes]))


def targets(scenes: list[Scene]) -> list[dict[str, torch.Tensor]]:
    found = []
    for each in scenes:
        boxes = torch.tensor(each.boxes) / SIDE
        centred = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
        found.append({"class_labels": torch.tensor(each.labels), "boxes": centred})
    return found


def recall(model: RTDetrV2ForObjectDetection, count: int = 64) -> tuple[float, float]:
    """Of shapes in pictures never seen: how many are found with the right label (0.5, IoU 0.7), and how many finds are
    none."""
    scenes = [draw(TEST_SEED + number, SIDE, SIDE) for number in range(count)]
    model.eval()
    with torch.no_grad():
        out = model(pixel_values=pixels(scenes))
    model.train()
    scores = out.logits.sigmoid()
    centred = out.pred_boxes * SIDE
    boxes = torch.cat([centred[..., :2] - centred[..., 2:] / 2, centred[..., :2] + centred[..., 2:] / 2], -1)
    hit = wanted = extra = 0
    for number, scene in enumerate(scenes):
        best, labels = scores[number].max(-1)
        kept = [(boxes[number, at], int(labels[at])) for at in range(len(best)) if best[at] > 0.5]
        matched = [
            any(label == each and iou(box, torch.tensor(where)) > 0.7 for box, each in kept)
            for label, where in zip(scene.labels, scene.boxes, strict=True)
        ]
        hit, wanted, extra = hit + sum(matched), wanted + len(matched), extra + max(0, len(kept) - sum(matched))
    return hit / wanted, extra / wanted


def iou(one: torch.Tensor, other: torch.Tensor) -> float:
    low, high = torch.maximum(one[:2], other[:2]), torch.minimum(one[2:], other[2:])
    both = float((high - low).clamp(min=0).prod())
    return both / (float((one[2:] - one[:2]).prod()) + float((other[2:] - other[:2]).prod()) - both)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--threads", type=int, default=1)
    wanted = parser.parse_args(argv)
    torch.manual_seed(7)
    torch.set_num_threads(wanted.threads)
    model = RTDetrV2ForObjectDetection(tiny())
    print(f"{sum(each.numel() for each in model.parameters())} parameters", flush=True)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1.5e-3, weight_decay=1e-4)
    warm = 200
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(1.0, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / wanted.steps))),
    )
    began = time.monotonic()
    for step in range(wanted.steps):
        scenes = [draw(step * BATCH + number, SIDE, SIDE) for number in range(BATCH)]
        loss = model(pixel_values=pixels(scenes), labels=targets(scenes)).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimiser.step()
        rate.step()
        if step % 200 == 199:
            found, extra = recall(model)
            print(f"{step + 1}: loss {loss.item():.2f}, found {found:.3f}, too many {extra:.3f}, "
                  f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
            save(model, wanted.folder)
    save(model, wanted.folder)
    return 0


def save(model: RTDetrV2ForObjectDetection, folder: Path) -> None:
    """The folder as published models have it, with weights of half the size."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["RTDetrV2ForObjectDetection"]
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING, indent=1) + "\n")
    model.save_pretrained(folder, safe_serialization=True)  # drops what is there twice, under the names that are loaded
    from safetensors.torch import load_file

    whole = load_file(folder / "model.safetensors")
    half = {name: each.half() if each.is_floating_point() else each for name, each in whole.items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
