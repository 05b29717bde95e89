"""`huggingface_hub` under our own egress: what it asks the server goes through one policy, or nowhere.

The library has one HTTP client for the whole process; ours hands each request to the `Egress` of the call that is
running in this thread, bounded, with nothing kept between calls. Importing this module costs a quarter of a second
and 25 MB, so nothing but `huggingface` imports it, and only once something is asked of Hugging Face.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile

from corral.artifact import safe_path
from corral.errors import EgressRefused, ManifestError, NotInRegistry, RegistryError
from corral.hidden import address
from corral.lazy_dataclass import dataclass
from corral.registry.answers import failure
from corral.registry.egress import Egress, Response
from corral.registry.hub_files import HubFile

MAX_ANSWER_BYTES: Final = 16 << 20
MAX_PAGES: Final = 100
MAX_FILES: Final = 20_000
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OID = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLACE: Final = "Hugging Face"
GATED: Final = "if its page there asks for it, accept its conditions; then `hf auth login`, or set HF_TOKEN"
_PRIVATE: Final = "check the name; if it is private, `hf auth login` or set HF_TOKEN"


@dataclass(frozen=True, slots=True)
class HubModel:
    """One answer of a search."""

    name: str
    downloads: int
    description: str


class Hub:
    """The API of one Hugging Face server for one user. All methods block, and may be called from several threads."""

    def __init__(self, egress: Egress, endpoint: str, token: str | None) -> None:
        self._egress = egress
        self._endpoint = endpoint
        self._token = token
        self._api = HfApi(endpoint=endpoint, token=token or False, library_name="corral")

    def commit(self, repository: str, revision: str) -> str:
        """The commit that a branch, a tag or a beginning of a commit's name stands for now."""
        with self._calling(f"the model {repository}"):
            found = self._api.model_info(repository, revision=revision or "main").sha
        if not isinstance(found, str) or _COMMIT.fullmatch(found) is None:
            raise ManifestError(f"Hugging Face names no commit of {repository}", hint="check HF_ENDPOINT, if it is set")
        return found

    def files(self, repository: str, commit: str) -> tuple[HubFile, ...]:
        """All files of a repository at one commit."""
        found: dict[str, HubFile] = {}
        with self._calling(f"the model {repository}"):
            for entry in self._api.list_repo_tree(repository, revision=commit, recursive=True):
                if isinstance(entry, RepoFile):
                    file = _file(entry)
                    found[file.path] = file
                if len(found) > MAX_FILES:
                    raise ManifestError(f"{repository} has over {MAX_FILES} files", hint="name one of them")
        return tuple(found.values())

    def search(self, text: str, limit: int, *, only_gguf: bool) -> list[HubModel]:
        """The models most downloaded among those whose name has `text`."""
        wanted = "gguf" if only_gguf else None
        with self._calling("a search"):
            models = self._api.list_models(search=text, filter=wanted, sort="downloads", limit=limit)
            return [_found(model) for model in models][:limit]

    def url(self, repository: str, commit: str, path: str) -> str:
        """Where a file's content is; from there the server redirects to its storage."""
        return hf_hub_url(repository, path, revision=commit, endpoint=self._endpoint)

    @contextmanager
    def _calling(self, what: str) -> Iterator[None]:
        call = _Call(self._egress, self._endpoint, what, self._token is not None)
        mark = _CALL.set(call)
        try:
            yield
        except HFValidationError as error:
            raise NotInRegistry(f"{what} cannot exist by its name", hint="write it as hf.co/owner/name") from error
        except (HfHubHTTPError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise RegistryError(f"{what}: {str(error)[:200]}", hint="check HF_ENDPOINT, if it is set") from error
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
            raise ManifestError(
                f"{what} was not answered as Hugging Face does", hint="check HF_ENDPOINT, if it is set"
            ) from error
        finally:
            _CALL.reset(mark)


@dataclass(slots=True)
class _Call:
    egress: Egress
    endpoint: str
    what: str
    known: bool  # we say who we are
    requests: int = 0


_CALL: ContextVar[_Call] = ContextVar("corral_hub_call")


class _Transport(httpx2.BaseTransport):
    """Carries out the library's requests by the running call's egress; raises our errors for whatever is no success.

    So the library never sees a status it would try again for, sleeping as long as the server says.
    """

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        call = _CALL.get(None)
        url = str(request.url)
        if call is None:
            raise EgressRefused(f"a request outside of any call: {address(url[:200])}", hint="please report it")
        if not url.startswith(f"{call.endpoint}/api/models"):
            host = urlsplit(url).netloc
            raise EgressRefused(
                f"{call.what} leads to another place: {host[:100]}", hint="the server is not to be trusted"
            )
        call.requests += 1
        if call.requests > MAX_PAGES:
            raise ManifestError(f"{call.what} has no end of pages", hint="check HF_ENDPOINT, if it is set")
        headers = {name: request.headers[name] for name in ("authorization", "accept") if name in request.headers}
        with call.egress.request(request.method, url, headers=headers) as response:
            if response.status != 200:
                raise _refused(call, response)
            body = response.read(MAX_ANSWER_BYTES)
        link = response.headers.get("link")
        kept = {"content-type": "application/json"} | ({"link": link} if link else {})
        return httpx2.Response(200, headers=kept, content=body, request=request)


def _refused(call: _Call, response: Response) -> RegistryError:
    code, said = response.headers.get("x-error-code"), response.headers.get("x-error-message")
    error = failure(response, call.what, _PLACE)
    kind, hint = type(error), error.hint
    if code == "RevisionNotFound":
        hint = "check what is written behind @: a branch, a tag or a commit"
    elif code != "GatedRepo" and response.status in (401, 404) and not call.known:
        # A private repository and one that does not exist look alike to strangers.
        kind, hint = NotInRegistry, _PRIVATE
    elif response.status in (401, 403):
        hint = GATED
    words = f": {''.join(char for char in said[:200] if char.isprintable())}" if said else ""
    return kind(f"{error.message}{words}", hint=hint, **error.details)


def _client() -> httpx2.Client:
    return httpx2.Client(transport=_Transport(), follow_redirects=False, trust_env=False, timeout=None)


def _file(entry: RepoFile) -> HubFile:
    path = safe_path(entry.path)
    size = entry.lfs.size if entry.lfs is not None else entry.size
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
        raise ManifestError(f"the size of {path} is {size!r:.40}", hint="check HF_ENDPOINT, if it is set")
    if entry.lfs is not None:
        if not isinstance(entry.lfs.sha256, str) or _SHA256.fullmatch(entry.lfs.sha256) is None:
            raise ManifestError(f"the SHA-256 of {path} is none", hint="check HF_ENDPOINT, if it is set")
        return HubFile(path, size, f"sha256:{entry.lfs.sha256}")
    if not isinstance(entry.blob_id, str) or _OID.fullmatch(entry.blob_id) is None:
        raise ManifestError(f"git's name of {path} is none", hint="check HF_ENDPOINT, if it is set")
    return HubFile(path, size, None, entry.blob_id)


def _found(model: Any) -> HubModel:
    name, downloads = model.id, model.downloads or 0
    if not isinstance(name, str) or not isinstance(downloads, int):
        raise ManifestError("the search on Hugging Face names no model", hint="check HF_ENDPOINT, if it is set")
    words = [
        model.pipeline_tag,
        *(tag for tag in model.tags or [] if isinstance(tag, str) and tag.startswith("base_model:q")),
    ]
    return HubModel(name, downloads, ", ".join(word for word in words if isinstance(word, str)))


# What the library would tell the server about this machine and its programs, it may not; and what it would ask for that
# purpose has no place in our policy.
constants.HF_HUB_DISABLE_TELEMETRY = True
set_client_factory(_client)
