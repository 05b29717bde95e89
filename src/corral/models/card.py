"""The model card: what is known of a stored model before it runs, and whether it fits here: `card(store, digest)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final, Literal

from corral.artifact.lineage import lineage_of
from corral.errors import CorralError, ModelFileError
from corral.hardware.probe import Hardware
from corral.lazy_dataclass import dataclass
from corral.models.content import Content, read_content, read_stored_header
from corral.models.footprint import estimate
from corral.models.formats.capabilities import capabilities
from corral.models.formats.gguf import Header, LongArray, read_header
from corral.models.formats.safetensors import SafetensorsModel, read_directory
from corral.models.unpack import Placed, place
from corral.store.store import Store

CONTEXTS: Final = (2048, 4096, 8192, 16384, 32768, 65536, 131072)
TEMPLATE_FROM = Literal["layer", "header", "none"]

Fit = Literal["fits", "fits when memory is freed", "does not fit", "unknown"]


@dataclass(frozen=True, slots=True)
class AtContext:
    """What serving one request at a time takes with a context of so many tokens."""

    context: int
    bytes: int  # everything: weights, KV cache, scratch, projector and adapters
    kv_bytes: int
    fit: Fit
    fits_gpu: bool | None  # wholly on the largest GPU; None where no GPU's memory is known


@dataclass(frozen=True, slots=True)
class Card:
    """A model, described. Texts are "" where nothing says them."""

    digest: str
    names: tuple[str, ...]
    title: str
    flavour: str  # the packaging: docker, cncf, ollama, plain
    format: str
    architecture: str
    parameters: int | None
    quantization: str
    bytes: int  # of all its layers
    context_length: int | None  # the longest it was made for, in tokens
    context_size: int | None  # what its packager wants
    embedding_length: int | None
    vocabulary: int | None
    template: TEMPLATE_FROM
    licenses: tuple[str, ...]  # names, or a text's first line
    capabilities: tuple[str, ...]
    files: tuple[tuple[str, str, int], ...]  # role, path, bytes
    created: str = ""
    system: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    footprints: tuple[AtContext, ...] = ()
    notes: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)  # the template and the licence, whole
    metadata: Mapping[str, Any] = field(
        default_factory=dict, repr=False
    )  # of the weights' header, long arrays measured
    lineage: str = ""  # what it was made of by whom, in words


@dataclass(slots=True)
class _Known:
    """What could be read of the weights."""

    header: Header | None = None
    tensors: SafetensorsModel | None = None
    placed: Placed | None = None
    notes: list[str] = field(default_factory=list)


def card(store: Store, digest: str, hardware: Hardware | None = None) -> Card:
    """The card of the stored model `digest`. Blocks for a few milliseconds; places the model when it has to look into
    its files by name, but takes no archive out for this.

    Raises NotInStore and ManifestError; weights that cannot be read become a note.
    """
    content = read_content(store, digest)
    artifact = content.artifact
    known = _look(store, content)
    header, tensors = known.header, known.tensors
    template = content.template or (header.chat_template if header is not None else None)
    projectors = artifact.of("mmproj")
    sees, hears = _senses(store, content)
    parameters = header.parameters if header is not None else tensors.shape.parameters if tensors is not None else None
    return Card(
        digest=digest,
        names=tuple(store.names_of(digest)),
        title=(header.name if header is not None else None) or artifact.name,
        flavour=artifact.flavour,
        format=artifact.format,
        architecture=(header.architecture if header is not None else tensors.architecture if tensors else "")
        or artifact.architecture,
        parameters=parameters,
        quantization=(header.quantization if header is not None else tensors.quantization if tensors else "")
        or artifact.quantization,
        bytes=artifact.size,
        context_length=header.context_length if header is not None else tensors.context_length if tensors else None,
        context_size=content.context_size,
        embedding_length=header.integer("{arch}.embedding_length") if header is not None else None,
        vocabulary=header.vocabulary if header is not None else None,
        template="layer" if content.template else "header" if template else "none",
        licenses=_licenses(content, header),
        capabilities=capabilities(
            header,
            template=template or content.go_template,
            claimed=artifact.capabilities,
            vision=sees or (bool(projectors) and not hears),
            audio=hears,
        ),
        files=tuple((file.role, file.path, file.descriptor.size) for file in artifact.files),
        created=artifact.created,
        system=content.system,
        params=dict(content.params),
        footprints=_footprints(content, header, hardware),
        notes=tuple(known.notes),
        texts={
            key: text
            for key, text in (
                ("template", template or content.go_template or ""),
                ("license", "\n\n".join(content.licenses)),
            )
            if text
        },
        metadata=_metadata(header),
        lineage=lineage.words() if (lineage := lineage_of(store.manifest(digest))) is not None else "",
    )


def _look(store: Store, content: Content) -> _Known:
    known = _Known()
    artifact = content.artifact
    if artifact.packed:
        known.notes.append("its files are in archives, which are taken out when it first runs")
        return known
    try:
        if artifact.format == "gguf":
            known.header = read_stored_header(store, artifact)
        elif artifact.format == "safetensors":
            known.tensors = read_directory(place(store, content.digest).directory)
    except CorralError as error:
        known.notes.append(f"its weights cannot be read: {error.message}")
    if content.go_template is not None and content.template is None:
        source = (
            "the template in its weights" if known.header and known.header.chat_template else "the engine's default"
        )
        known.notes.append(f"its chat template is Ollama's Go text, which no engine here reads; {source} is used")
    return known


def _senses(store: Store, content: Content) -> tuple[bool, bool]:
    """Whether the projector says that it sees, and that it hears."""
    for file in content.artifact.of("mmproj"):
        try:
            header = read_header(store.blob(file.descriptor.digest).path)
        except (ModelFileError, OSError):
            continue
        return header.get("clip.has_vision_encoder") is True, header.get("clip.has_audio_encoder") is True
    return False, False


def _licenses(content: Content, header: Header | None) -> tuple[str, ...]:
    found = list(content.artifact.licenses)
    if not found and header is not None and (named := header.text("general.license")):
        found.append(named)
    if not found:
        found = [line for text in content.licenses if (line := _first_line(text))]
    return tuple(dict.fromkeys(found))


def _first_line(text: str) -> str:
    return next((line.strip()[:100] for line in text.splitlines() if line.strip()), "")


def _footprints(content: Content, header: Header | None, hardware: Hardware | None) -> tuple[AtContext, ...]:
    if header is None:
        return ()
    longest = header.context_length or CONTEXTS[1]
    wanted = {context for context in CONTEXTS if context <= longest} | {longest}
    if content.context_size is not None:
        wanted.add(content.context_size)
    beside = sum(file.descriptor.size for file in content.artifact.of("mmproj", "adapter", "draft"))
    found = []
    for context in sorted(wanted):
        predicted = estimate(header, context=context, slots=1)
        total = predicted.total_bytes + beside
        found.append(AtContext(context, total, predicted.kv_bytes, _fit(total, hardware), _fits_gpu(total, hardware)))
    return tuple(found)


def _fit(total: int, hardware: Hardware | None) -> Fit:
    """Against all memory there is: the processor's, or a GPU's of its own where that is larger."""
    memory = hardware.memory if hardware is not None else None
    if memory is None or hardware is None:
        return "unknown"
    gpus = [gpu for gpu in hardware.gpus if gpu.memory_bytes and gpu.problem is None]
    free = max([memory.available_bytes, *(gpu.free_bytes or 0 for gpu in gpus)])
    most = max([memory.usable_bytes, *(gpu.memory_bytes or 0 for gpu in gpus)])
    if total <= free:
        return "fits"
    return "fits when memory is freed" if total <= most else "does not fit"


def _fits_gpu(total: int, hardware: Hardware | None) -> bool | None:
    sizes = [gpu.memory_bytes for gpu in (hardware.gpus if hardware is not None else ()) if gpu.problem is None]
    known = [size for size in sizes if size]
    return total <= max(known) if known else None


def _metadata(header: Header | None) -> dict[str, Any]:
    if header is None:
        return {}
    return {
        key: f"{value.length:,} of {value.element}" if isinstance(value, LongArray) else value
        for key, value in header.metadata.items()
        if key != "tokenizer.chat_template"
    }
