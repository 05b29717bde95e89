"""Every error Corral raises on purpose, one tree split by whose fault it is.

Each class has a stable `code` (for programs), an HTTP `status` and, per instance, a `hint` that says what to do
next. Only a gateway dialect knows what its error body looks like; nothing here does.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CorralError(Exception):
    """One clear sentence, a hint, and details for programs."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    fault: ClassVar[str] = "corral"

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    @property
    def retry_after_s(self) -> int | None:
        """Whole seconds after which trying again makes sense, when that is known."""
        value = self.details.get("retry_after_s")
        return None if value is None else max(1, round(value))


class CallerError(CorralError):
    """The caller asked for something that cannot be."""

    code, status, fault = "bad_request", 400, "caller"


class NotJson(CallerError):
    code = "not_json"


class MissingModel(CallerError):
    code = "missing_model"


class UnknownModel(CallerError):
    code, status = "model_not_found", 404


class LocalOnly(CallerError):
    """Only the server's own user may ask for this, over its unix socket: it names files, or takes a password."""

    code, status = "local_only", 403


class Unauthorized(CallerError):
    """A key is needed here, and none came, or one that does not count."""

    code, status = "unauthorized", 401


class Forbidden(CallerError):
    """The key is right, but not good for this."""

    code, status = "forbidden", 403


class OriginRefused(CallerError):
    """A browser says that another page sent this, or under a name that is not this server's."""

    code, status = "origin_refused", 403


class LimitReached(CallerError):
    """One of the key's limits; `details` carry `limit`, and `retry_after_s` where waiting helps."""

    code, status = "limit_reached", 429


class NoSuchKey(CallerError):
    code, status = "no_such_key", 404


class NotFound(CallerError):
    code, status = "not_found", 404


class BadReference(CallerError):
    """What should name a model in a registry cannot be read as such a name."""

    code = "bad_reference"


class MethodNotAllowed(CallerError):
    code, status = "method_not_allowed", 405


class NotOffered(CallerError):
    """A route of a peer's API that Corral does not have, on purpose."""

    code, status = "not_offered", 501


class FeatureDisabled(NotOffered):
    """The same where the peer has it only when it is switched on, so that its clients know how to do without."""

    code, status = "feature_disabled", 403


class TooLarge(CallerError):
    code, status = "body_too_large", 413


class NotAnImage(CallerError):
    """What should be a picture is none, or of a kind that is not opened."""

    code, status = "unsupported_media_type", 415


class BadImage(CallerError):
    """A picture that is broken, or cut off."""

    code = "bad_image"


class ImageTooLarge(CallerError):
    code, status = "image_too_large", 413


class HeadTooLarge(CallerError):
    code, status = "head_too_large", 431


class TooSlow(CallerError):
    """The client took longer to send its request than anybody should wait."""

    code, status = "request_timeout", 408


class QueueFull(CallerError):
    """The bounded queue is full; `details` carry `queue_position` and `retry_after_s`."""

    code, status = "queue_full", 503


class TooManyConnections(CallerError):
    """There is no room for another connection."""

    code, status = "too_many_connections", 503


class DeadlinePassed(CallerError):
    """The request waited in the queue or for a load longer than it may."""

    code, status = "deadline_passed", 504


class CannotFit(CallerError):
    """The model can never run under the configured memory budgets, whatever is evicted."""

    code, status = "cannot_fit", 507


class Stopping(CorralError):
    """Corral is shutting down and takes no new work."""

    code, status, fault = "shutting_down", 503, "corral"


class ConfigError(CorralError):
    """The configuration, or the place Corral was started in, is wrong."""

    code, status, fault = "config", 400, "config"


class StateInUse(ConfigError):
    code, status = "state_in_use", 409


class PortInUse(ConfigError):
    code, status = "port_in_use", 409


class ModelFileError(ConfigError):
    """The model file is missing, truncated, corrupt, or outside what is allowed."""

    code, status = "model_file", 422


class RegistryError(CorralError):
    """A registry could not give what was asked of it."""

    code, status, fault = "registry", 502, "registry"


class NotInRegistry(RegistryError):
    """The registry answered, and has no such model, tag or file."""

    code, status = "not_in_registry", 404


class NotAllowedThere(RegistryError):
    """The registry wants credentials, or other ones."""

    code, status = "registry_denied", 401


class RateLimited(RegistryError):
    """The registry wants us to come later; `details['retry_after_s']` when it said how much."""

    code, status = "rate_limited", 429


class Unavailable(RegistryError):
    """The registry cannot be reached, or breaks off, however often it is tried."""

    code, status = "registry_unavailable", 502


class EgressRefused(RegistryError):
    """Our own policy forbids this address: a private one, another scheme, a registry that is not allowed."""

    code, status, fault = "egress_refused", 403, "config"


class ManifestError(RegistryError):
    """A manifest, config or index that is damaged, absurd, or of a kind nobody here understands."""

    code, status = "manifest", 422


class DigestMismatch(RegistryError):
    """Content is not what its digest says."""

    code, status = "digest_mismatch", 502


class StoreError(CorralError):
    """The model store on disk cannot do what was asked."""

    code, status, fault = "store", 500, "config"


class NotInStore(StoreError):
    """No model of that name or digest is in the store."""

    code, status, fault = "not_in_store", 404, "caller"


class DiskFull(StoreError):
    """Too little space; what was fetched so far is kept and can be gone on with."""

    code, status = "disk_full", 507


class InUse(StoreError):
    """A running unit uses what should be removed."""

    code, status, fault = "in_use", 409, "caller"


class ArchiveRefused(StoreError):
    """An archive that no store would write: damaged, or made to do harm."""

    code, status, fault = "archive_refused", 422, "caller"


class SignatureError(StoreError):
    """A policy asks for a signature that is missing or wrong."""

    code, status = "signature", 403


class EngineError(CorralError):
    """The engine refused, died or did not answer."""

    code, status, fault = "engine", 502, "engine"


class EngineMissing(EngineError):
    code, status = "engine_missing", 501


class InstallFailed(EngineError):
    """An engine's environment could not be made, or is not what it should be; `details['log_tail']` has pip's words."""

    code, status = "install_failed", 502


class EngineFlagError(EngineError):
    """A flag this engine build does not know, found before anything was started."""

    code, status = "engine_flag", 422


class UnknownArchitecture(EngineError):
    code, status = "unknown_architecture", 422


class StartFailed(EngineError):
    """The engine ended, or was not ready in time; `details['log_tail']` has its last lines."""

    code, status = "start_failed", 502


class Unparsed(EngineError):
    """The engine could not read what its own model said, so that the text is lost."""

    code, status = "unparsed", 502


class EngineGone(EngineError):
    """The engine's connection ended in the middle of a request."""

    code, status = "engine_gone", 502


class OutOfMemory(EngineGone):
    """The engine said of itself that it has no memory left, and was given up for it."""

    code, status = "out_of_memory", 507


class GpuLost(EngineGone):
    """The engine said of itself that its GPU failed, and was given up for it."""

    code, status = "gpu_lost", 502


class Unreachable(CorralError):
    """No Corral server answers where one was expected (the client's view)."""

    code, status, fault = "unreachable", 503, "caller"


class Bug(CorralError):
    """Something that cannot happen did; please report it."""

    code, status, fault = "bug", 500, "corral"
