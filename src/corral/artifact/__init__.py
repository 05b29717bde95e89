"""Model artifacts: which layer of a manifest is which file of a model, in every format that peers write.

file
    one layer under a role (weights, shard, mmproj, adapter, template …) and a checked relative path.
artifact
    all files of one manifest, and what its config says of the model: `read_artifact(manifest, config)`.
facts
    what a builder is told of a model, to write into the config of the artifact it makes.
built
    a manifest and its config as bytes, the same for the same input: `build_docker`, `build_cncf`.

Pure: decoded JSON goes in and plain frozen data comes out, or the other way round. Everything read here may be
hostile; whatever is absurd is a `ManifestError`.
"""

from corral.artifact.build import Built, Facts, build_cncf, build_docker
from corral.artifact.files import Artifact, File, Packing, Role, safe_path
from corral.artifact.read import read_artifact, role_by_name, with_shards

__all__ = [
    "Artifact",
    "Built",
    "Facts",
    "File",
    "Packing",
    "Role",
    "build_cncf",
    "build_docker",
    "read_artifact",
    "role_by_name",
    "safe_path",
    "with_shards",
]
