"""The images of one container engine as builds of engines: chosen for a model, asked once, remembered by their id."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from corral import __version__, clock
from corral.config.paths import Paths
from corral.config.settings import ModelSettings
from corral.engines import executables, vllm_builds
from corral.engines.executables import Build, InImage
from corral.engines.vllm_builds import SHARED_BYTES, VllmBuild, VllmFlags, VllmInImage, build_inside
from corral.errors import ConfigError, EngineError, EngineMissing
from corral.hardware.gpus import Gpu, read_gpus
from corral.lazy_dataclass import dataclass
from corral.runners.containers import catalogue, naming
from corral.runners.containers.catalogue import Entry
from corral.runners.containers.engine import ASK_WITHIN_S, Engine
from corral.runners.containers.host import Image
from corral.runners.containers.spec import ContainerSpec, identity
from corral.runners.environment import container_environment

FRESH_S = 2.0
"""So long an image's id is taken for known: one plan asks for it several times."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The image of one model."""

    entry: Entry
    reference: str
    image: Image
    warnings: tuple[str, ...]


class Images:
    """Thread-safe; everything blocks."""

    def __init__(self, engine: Engine, paths: Paths, kind: str) -> None:
        self._engine, self._paths, self._kind = engine, paths, kind
        self._seen: dict[str, tuple[float, Image | None]] = {}
        self._listed: dict[str, str] = {}
        self._lock = threading.RLock()  # held while an image is asked, so that it is asked once

    def choose(self, model: ModelSettings, gpus: Sequence[Gpu] | None = None) -> Chosen:
        """Raises EngineMissing where no image for the model is here, EngineError for one that is not what was locked,
        ConfigError."""
        entry = self._entry(model, read_gpus() if gpus is None else gpus)
        for reference in entry.references:
            if (image := self._here(reference)) is not None:
                return Chosen(entry, reference, image, self._judged(reference, image))
        wanted = entry.references[0]
        own = wanted.startswith("localhost/")
        fetch = f"corral image pull {entry.image}"
        build = f"corral image build {entry.engine} --variant {entry.variant}"
        local = entry.image.startswith("localhost/")
        raise EngineMissing(
            f"the image {entry.image} of {model.name} is not here, and no start fetches one",
            hint=build if local else f"{fetch}   (or build it here: {build})" if own else fetch,
            model=model.name,
            image=entry.image,
        )

    def build(self, model: ModelSettings) -> Build:
        """The llama.cpp that will run `model`."""
        gpus = read_gpus()
        chosen = self.choose(model, gpus)
        version, flags = self._asked(chosen)
        nodes = catalogue.nodes_for(chosen.entry, gpus, _visible(model))

        def listing(environment: Mapping[str, str], args: Sequence[str], afresh: bool) -> str:
            if not nodes and not args:
                return ""
            key = repr((chosen.image.id, nodes, sorted(environment.items()), tuple(args)))
            with self._lock:
                if afresh or key not in self._listed:
                    self._listed[key] = self._ask(chosen, (*args, "--list-devices"), nodes, environment)
                return self._listed[key]

        inside = InImage(
            chosen.reference, chosen.image.id, nodes, chosen.entry.env, listing, (*chosen.warnings, *_aside(model))
        )
        return executables.build_inside(Path(chosen.entry.program), version, flags, inside)

    def vllm(self, model: ModelSettings) -> VllmBuild:
        """The vLLM that will run `model`. What begins its command line is what it is asked for its flags by."""
        gpus = read_gpus()
        chosen = self.choose(model, gpus)
        entry = chosen.entry
        version, flags = self._asked(chosen)
        if entry.variant not in ("cpu", "cuda", "rocm"):
            raise EngineError(f"vLLM has no variant {entry.variant}", hint="take `gpu_backend` away, or correct it")
        inside = VllmInImage(
            chosen.reference,
            chosen.image.id,
            (entry.program, *entry.help[:-1]),
            VllmFlags(),
            catalogue.nodes_for(entry, gpus, _visible(model)),
            entry.env,
            (*chosen.warnings, *_aside(model)),
        )
        return build_inside(version, flags, entry.variant, inside)  # type: ignore[arg-type]

    def version(self, chosen: Chosen) -> str:
        """What the engine in an image answers when it is asked for its version. Raises EngineError."""
        return self._asked(chosen)[0]

    def _entry(self, model: ModelSettings, gpus: Sequence[Gpu]) -> Entry:
        known = catalogue.load(self._paths)
        if model.image is None:
            return known.chosen(model.engine, model.gpu_backend, model.gpu_layers, gpus)
        if not naming.is_reference(model.image):
            raise ConfigError(
                f"{model.image!r} of {model.name} is no image's reference",
                hint="such as ghcr.io/ggml-org/llama.cpp:server",
                model=model.name,
            )
        if (entry := known.of_reference(model.image)) is None:
            here = self._here(model.image)
            like = known.chosen(model.engine, model.gpu_backend, model.gpu_layers, gpus)
            own = here is not None and here.entrypoint and model.engine == "llama.cpp"
            program = here.entrypoint[0] if own and here is not None else like.program
            entry = Entry(
                model.engine, like.variant, model.image, program, "", like.version, like.help, like.env, like.devices
            )
        return Entry(
            entry.engine, entry.variant, model.image, entry.program, "", entry.version, entry.help, entry.env,
            entry.devices,
        )  # fmt: skip

    def _here(self, reference: str) -> Image | None:
        with self._lock:
            at, image = self._seen.get(reference, (float("-inf"), None))
            if clock.monotonic() - at > FRESH_S:
                image = self._engine.image(reference)
                self._seen[reference] = (clock.monotonic(), image)
            return image

    def _judged(self, reference: str, image: Image) -> tuple[str, ...]:
        digest = catalogue.locked(self._paths).get(reference)
        if digest is None:
            return (f"the image {reference} is not locked to a digest: corral lock",)
        if digest.removeprefix("sha256:") != image.id and not any(
            each.endswith(f"@{digest}") for each in image.digests
        ):
            raise EngineError(
                f"the image {reference} that is here is not the one that was locked ({digest[:19]}…)",
                hint=f"corral image pull {reference}   (or take the new one for good: corral lock)",
                image=reference,
            )
        return ()

    def _asked(self, chosen: Chosen) -> tuple[str, str]:
        """What the engine in the image says its version and its flags are."""
        entry = chosen.entry
        key = hashlib.sha256(repr((chosen.image.id, entry.program, entry.version, entry.help)).encode()).hexdigest()
        path = self._paths.cache_dir / "images" / f"{self._kind}-{key[:24]}.json"
        with self._lock:
            try:
                said = json.loads(path.read_bytes())
                return str(said["version"]), str(said["help"])
            except (OSError, ValueError, KeyError, TypeError):
                pass
            version, flags = self._ask(chosen, entry.version), self._ask(chosen, entry.help)
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f"{path.name}.{os.getpid()}")
            new.write_text(json.dumps({"image": chosen.reference, "version": version, "help": flags}))
            new.replace(path)
            return version, flags

    def _ask(
        self,
        chosen: Chosen,
        words: Sequence[str],
        nodes: tuple[str, ...] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Runs the image as shut in as it will be, but for a socket and a model."""
        host = self._engine.host()
        user, namespace = identity(host, readable=True, devices=bool(nodes))
        state = naming.state_id(os.fsencode(self._paths.state_dir))
        slow = chosen.entry.engine == "vllm"  # it loads a gigabyte of modules to say anything
        asker = hashlib.sha256(repr((tuple(words), nodes, os.getpid())).encode()).hexdigest()[:8]
        spec = ContainerSpec(
            name=f"corral-{state}-asked-{chosen.image.id[:8]}-{asker}",
            image=chosen.image.id,
            argv=(chosen.entry.program, *words),
            env=container_environment({**chosen.entry.env, **environment}),
            devices=nodes,
            labels=naming.labels(state, "", __version__),
            user=user,
            user_namespace=namespace,
            init=host.init,
            runs_tmp=slow,
            shared_bytes=SHARED_BYTES if slow else 0,
        )
        code, text = self._engine.ask(spec, vllm_builds.ASK_WITHIN_S if slow else ASK_WITHIN_S)
        if code:
            last = text.strip().splitlines()[-1:] or ["(no output)"]
            raise EngineError(
                f"{chosen.reference}: {' '.join(spec.argv)} failed with exit code {code}: {last[0]}",
                hint="name another `image`, or correct its entry in images.yaml",
                image=chosen.reference,
            )
        return text


def _visible(model: ModelSettings) -> str:
    return model.env.get("NVIDIA_VISIBLE_DEVICES") or os.environ.get("NVIDIA_VISIBLE_DEVICES", "")


def _aside(model: ModelSettings) -> tuple[str, ...]:
    if "/" in model.executable:
        return (f"`executable: {model.executable}` is for runner: process; in the image its own program is used",)
    return ()
