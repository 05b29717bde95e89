"""What transformers itself says of pictures: run by the environment of `make vision`, JSON on standard output.

`reference.py FOLDER PICTURE…`: its model in torch, its image processor, its post-processing, and its pipeline.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: str, files: list[str]) -> None:
    import torch
    from PIL import Image, ImageOps
    from transformers import AutoImageProcessor, ObjectDetectionPipeline, RTDetrV2ForObjectDetection

    torch.set_num_threads(1)
    model = RTDetrV2ForObjectDetection.from_pretrained(folder, dtype=torch.float32).eval()
    processor: Any = AutoImageProcessor.from_pretrained(folder)
    pipeline = ObjectDetectionPipeline(model=model, image_processor=processor)
    told = []
    for file in files:
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        inputs = processor(images=image, return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        found = processor.post_process_object_detection(
            outputs, threshold=0.05, target_sizes=[(image.height, image.width)]
        )[0]
        told.append(
            {
                "size": image.size,
                "scores": found["scores"].tolist(),
                "labels": found["labels"].tolist(),
                "boxes": found["boxes"].tolist(),
                "pipeline": pipeline(file, threshold=0.3),
            }
        )
    sys.stdout.write(json.dumps({"processor": type(processor).__name__, "pictures": told}))


if __name__ == "__main__":
    main(sys.argv[1], [str(Path(each)) for each in sys.argv[2:]])
