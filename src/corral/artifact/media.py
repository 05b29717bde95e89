"""Media types and annotations of model artifacts.

Source: Docker Model Runner's `pkg/distribution/types` (mid-2026) and its specification, which alone has the LoRA type;
CNCF ModelPack specification 0.0.7; Ollama's `server` package (0.33).
"""

from __future__ import annotations

import re
from typing import Final

DOCKER_CONFIG_V01: Final = "application/vnd.docker.ai.model.config.v0.1+json"
DOCKER_CONFIG_V02: Final = "application/vnd.docker.ai.model.config.v0.2+json"
DOCKER_GGUF: Final = "application/vnd.docker.ai.gguf.v3"
DOCKER_LORA: Final = "application/vnd.docker.ai.gguf.v3.lora"
DOCKER_SAFETENSORS: Final = "application/vnd.docker.ai.safetensors"
DOCKER_DDUF: Final = "application/vnd.docker.ai.dduf"
DOCKER_MMPROJ: Final = "application/vnd.docker.ai.mmproj"
DOCKER_MMPROJ_SPECIFIED: Final = "application/vnd.docker.ai.gguf.v3.mmproj"  # what the text says and no code writes
DOCKER_LICENSE: Final = "application/vnd.docker.ai.license"
DOCKER_TEMPLATE: Final = "application/vnd.docker.ai.chat.template.jinja"
DOCKER_FILE: Final = "application/vnd.docker.ai.model.file"
DOCKER_TARS: Final = ("application/vnd.docker.ai.dir.tar", "application/vnd.docker.ai.vllm.config.tar")

CNCF_ARTIFACT: Final = "application/vnd.cncf.model.manifest.v1+json"
CNCF_CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
CNCF_CONFIGS: Final = (CNCF_CONFIG, "application/vnd.cnai.model.config.v1+json")  # the second is its earlier name
CNCF_LAYER: Final = re.compile(
    r"application/vnd\.(?:cncf|cnai)\.model\.(?P<kind>weight|weight\.config|doc|code|dataset)\.v1"
    r"\.(?P<packing>raw|gguf|safetensors|tar|tar\+gzip|tar\+zstd)"
)

OLLAMA_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
OLLAMA_LAYER: Final = re.compile(r"application/vnd\.ollama\.image\.(?P<kind>[a-z]+)(?:;.*)?")

OCI_TITLE: Final = "org.opencontainers.image.title"
ORAS_UNPACK: Final = "io.deis.oras.content.unpack"
IMAGE_LAYERS: Final = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
FILEPATHS: Final = ("org.cncf.model.filepath", "org.cnai.model.filepath")
FILEPATH: Final = FILEPATHS[0]
ROLE: Final = "corral.role"  # of a layer, where its media type cannot say what the file is for
CONTEXT_SIZE: Final = "corral.context-size"  # of a manifest, where its config has no place for it

ROLE_OF_DOCKER_TYPE: Final = {
    DOCKER_GGUF: "weights",
    DOCKER_SAFETENSORS: "weights",
    DOCKER_DDUF: "weights",
    DOCKER_MMPROJ: "mmproj",
    DOCKER_MMPROJ_SPECIFIED: "mmproj",
    DOCKER_LORA: "adapter",
    DOCKER_LICENSE: "license",
    DOCKER_TEMPLATE: "template",
}
ROLE_OF_OLLAMA_KIND: Final = {
    "model": "weights",
    "projector": "mmproj",
    "adapter": "adapter",
    "draft": "draft",
    "template": "template",
    "system": "system",
    "params": "params",
    "messages": "messages",
    "license": "license",
}
