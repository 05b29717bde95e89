"""The model in onnxruntime: loaded once, called with batches from one thread."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from corral.detector.findings import Numbers
from corral.engines.detector_flags import Flags

PROVIDERS: Final = {
    "cuda": "CUDAExecutionProvider",
    "rocm": "MIGraphXExecutionProvider",
    "openvino-gpu": "OpenVINOExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""onnxruntime's names of what a model can run on, by ours."""


class Session:
    """`run` takes pictures x 3 x height x width and gives logits and boxes of each."""

    def __init__(self, flags: Flags) -> None:
        """Blocks for the load. Raises what onnxruntime raises, and RuntimeError for a file that is no such model."""
        options = onnxruntime.SessionOptions()
        self._wanted = flags.provider
        options.intra_op_num_threads = flags.threads
        options.inter_op_num_threads = 1
        # Threads that spin between two batches would take the processors from whoever decodes the next pictures.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        wanted: list[Any] = [_provider(flags)]
        if flags.provider != "cpu":
            wanted.append(PROVIDERS["cpu"])
        self._session = onnxruntime.InferenceSession(flags.model, options, providers=wanted)
        inputs, outputs = self._session.get_inputs(), {each.name: each for each in self._session.get_outputs()}
        if len(inputs) != 1 or not {"logits", "pred_boxes"} <= outputs.keys():
            names = ", ".join([*(each.name for each in inputs), *outputs])
            raise RuntimeError(f"{flags.model} does not take pictures and give logits and pred_boxes (it has {names})")
        self._input = inputs[0].name
        self._kind: npt.DTypeLike = np.float16 if inputs[0].type == "tensor(float16)" else np.float32
        first = inputs[0].shape[0]
        self.largest_batch = first if isinstance(first, int) else None  # a file exported for one size of batch

    @property
    def runs_on(self) -> str:
        """The provider that it came up with, which may be less than was asked for."""
        return "cpu" if self._session.get_providers()[0] == PROVIDERS["cpu"] else self._wanted

    def run(self, batch: npt.NDArray[np.float32]) -> tuple[Numbers, Numbers]:
        """Blocks until the model has looked at all of `batch`."""
        fed = batch if self._kind == np.float32 else batch.astype(self._kind)
        logits, boxes = self._session.run(["logits", "pred_boxes"], {self._input: fed})
        return np.asarray(logits, np.float32), np.asarray(boxes, np.float32)


def _provider(flags: Flags) -> Any:
    name = PROVIDERS[flags.provider]
    if flags.provider in ("cuda", "rocm"):
        return name, {"device_id": str(flags.device)}
    if flags.provider == "openvino-gpu":
        return name, {"device_type": f"GPU.{flags.device}"}
    if flags.provider == "openvino":
        return name, {"device_type": "CPU"}
    return name
