"""`AccessGate`: answers the gateway's questions: who is this, may they, and how much is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from corral import clock
from corral.access import origin, sizes
from corral.access.account import Account, Admission
from corral.access.desk import Desk
from corral.access.keys import Key, Scope, id_of
from corral.access.origin import Rules, Said
from corral.access.recording import Recordable, Recorder
from corral.config.listening import is_loopback
from corral.config.settings import Listen, Settings
from corral.errors import Forbidden, OriginRefused, Unauthorized
from corral.lazy_dataclass import dataclass

Fields = list[tuple[bytes, bytes]]

_WATCHED = frozenset(
    (b"host", b"origin", b"sec-fetch-site", b"authorization", b"x-api-key", b"api-key", b"x-forwarded-for",
     b"x-forwarded-proto")
)  # fmt: skip
_HOSTS = 256
_MODELS = 1000
_HINT = "send it as `Authorization: Bearer ck_…`, to commands in CORRAL_KEY; `corral keys create` makes one"


class Asked(Recordable, Protocol):
    """What is looked at of an exchange."""

    local: bool
    peer: str
    where: Listen
    extra: Fields


class Took(Protocol):
    """What an engine said that an answer took."""

    @property
    def prompt(self) -> int: ...

    @property
    def completion(self) -> int: ...

    @property
    def answers(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: the holder of `key`, or whoever is at an address."""

    id: str  # never a secret
    key: Key | None = None

    @property
    def owner(self) -> str:
        """Whose what it leaves behind is: its key's, or of all who need none."""
        return "" if self.key is None else self.key.id

    def may(self, scope: Scope) -> bool:
        return self.key is None or self.key.may(scope)

    def may_use(self, names: Iterable[str]) -> bool:
        """Whether it may have a model that goes by any of `names`."""
        return self.key is None or self.key.may_use(names)


class Unbounded:
    """The requests for a model of those who need no key: they are only counted, and so all have the same."""

    __slots__ = ("_desk", "_model", "_tokens")
    saved: asyncio.Future[None] | None = None
    body: bytes | None = None

    def __init__(self, desk: Desk, model: str, tokens: bool) -> None:
        self._desk, self._model, self._tokens = desk, model, tokens

    def settle(self, usage: Took | None, events: int | None) -> None:
        """Ends it, see `corral.gateway.gate.Ticket`."""
        if usage is not None:
            self._desk.used("", self._model, usage.prompt, usage.completion)
        elif events != 0:  # cut off in the middle, or nobody says what it took
            self._desk.used("", self._model, 0, (events or 0) if self._tokens else 0)


class Ticket:
    """One admitted request of a key."""

    __slots__ = ("_account", "_admission", "_desk", "_key", "_model", "_tokens", "body", "saved")

    def __init__(self, desk: Desk, key: Key, model: str, tokens: bool) -> None:
        self._desk = desk
        self._key = key
        self._model = model
        self._tokens = tokens  # it makes the model read or write
        self._account: Account | None = None
        self._admission: Admission | None = None
        self.body: bytes | None = None
        """What is to be sent to the engine: with a bound to its answer, where tokens are counted and it had none that
        the engine surely obeys. None: as it came."""
        self.saved: asyncio.Future[None] | None = None
        """To be awaited, where it is there, before anything is sent: what this may spend is not written down yet."""

    def settle(self, usage: Took | None, events: int | None) -> None:
        """Ends it, see `corral.gateway.gate.Ticket`."""
        admission = self._admission
        prompt = completion = 0
        answers = 1
        most, held = (0, 0) if admission is None else (admission.prompt, admission.tokens)
        if usage is not None:
            # No prompt has no tokens: the end of some streams tells of the answer alone.
            prompt, completion, answers = usage.prompt or most, usage.completion, usage.answers
        elif self._tokens and events is None:  # nobody says what it took: all that it may have
            prompt, completion = most, max(0, held - most)
        elif self._tokens and events:  # cut off in the middle
            prompt, completion = most, events
        if self._account is not None and admission is not None:
            self._account.settle(admission, prompt + completion, answers)
        if usage is not None or events != 0:
            self._desk.used(self._key.id, self._model, prompt, completion)


class _Known:
    """What follows from one configuration, looked up instead of found out for each request."""

    def __init__(self, settings: Settings | None) -> None:
        self.settings = settings
        self.keyed: dict[int, bool] = {}  # by the identity of a listener's address
        self.wheres: list[Listen] = []  # kept, so that no other gets its identity
        self.rules = Rules()
        self._own: dict[bytes | None, bool] = {}
        if settings is not None:
            named = [where.host.lower() for where in settings.listen if where.host and is_loopback(where)]
            hosts = tuple(each.lower() for each in settings.allowed_hosts)
            self.rules = Rules((*hosts, *named), tuple(each.lower() for each in settings.allowed_origins))

    def is_own(self, host: bytes | None) -> bool:
        """Whether a Host field is an address, or a name of ours."""
        own = self._own.get(host)
        if own is None:
            if len(self._own) >= _HOSTS:
                self._own.clear()
            own = self._own[host] = origin.is_own_host(host, self.rules)
        return own


class AccessGate:
    """Over the keys of `desk`. `insecure`: no key is asked for anywhere."""

    def __init__(
        self,
        desk: Desk,
        settings: Callable[[], Settings],
        *,
        insecure: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self._desk = desk
        self._settings = settings
        self._insecure = insecure
        self.recorder = recorder or Recorder()
        self._known = _Known(None)
        self._free: tuple[dict[str, Unbounded], dict[str, Unbounded]] = ({}, {})  # by model; those that take tokens

    # Who it is.

    def enter(self, exchange: Asked, scope: Scope | None) -> Caller:
        """See `corral.gateway.gate.Gate`."""
        if not self.recorder.on:
            return self._enter(exchange, scope)
        record = self.recorder.begin(exchange)
        caller = self._enter(exchange, scope)
        record.caller = caller.id
        return caller

    def _enter(self, exchange: Asked, scope: Scope | None) -> Caller:
        seen: dict[bytes, bytes] = {}
        for field in exchange.headers:
            if field[0] in _WATCHED:
                seen.setdefault(*field)
        keyed, address = False, ""
        if not exchange.local:
            keyed, address = self._look(exchange, scope, seen)
        token = _token(seen)
        key_id = id_of(token) if token is not None else None
        if key_id is None or token is None:
            if keyed and scope is not None:
                what = "the key that was sent is none of Corral's" if token else "a key is needed here"
                raise Unauthorized(what, hint=_HINT)
            return Caller(address or exchange.peer)
        key = self._desk.keys.get(key_id)
        now = clock.wall()
        problem = "is not known" if key is None or not key.opens_with(token, now) else key.problem(now)
        if key is None or problem is not None:
            if scope is None:
                return Caller(address or exchange.peer)
            raise Unauthorized(f"the key {key_id} {problem}", hint="ask for a new one; `corral keys list` shows all")
        if scope is not None and not key.may(scope):
            raise Forbidden(
                f"the key {key_id} is not good for this: it needs the scope {scope}",
                hint="use another key",
                scope=scope,
            )
        return Caller(f"key:{key_id}", key)

    def constant(self, caller: object) -> object:
        """See `corral.gateway.gate.Gate`: a key may be revoked or expire, who has none stays the same."""
        if self.recorder.on or not isinstance(caller, Caller) or caller.key is not None:
            return None
        return self._known if self._known.settings is self._settings() else None

    def _look(self, exchange: Asked, scope: Scope | None, seen: dict[bytes, bytes]) -> tuple[bool, str]:
        """Whether a key is needed, and whose address it is. Raises OriginRefused."""
        settings, where, peer = self._settings(), exchange.where, exchange.peer
        known = self._known
        if known.settings is not settings:
            known = self._known = _Known(settings)
        keyed = known.keyed.get(id(where))
        if keyed is None:
            keyed = known.keyed[id(where)] = self.needs_key(where, settings)
            known.wheres.append(where)
        tls = where.tls is not None
        forwarded = seen.get(b"x-forwarded-for")
        if forwarded is not None and origin.is_trusted(peer, settings.trusted_proxies):
            values = [value for name, value in exchange.headers if name == b"x-forwarded-for"]
            peer = origin.client_address(peer, values, settings.trusted_proxies)
            tls = tls or seen.get(b"x-forwarded-proto", b"").lower() == b"https"
            keyed = keyed or not (self._insecure or where.insecure)  # from outside, whatever it says of itself
        elif not keyed and not known.is_own(seen.get(b"host")) and is_loopback(where):
            raise OriginRefused(
                "the Host field is no name of this server",
                hint="ask by address or as localhost, or name it in `allowed_hosts`",
            )
        said = Said(seen.get(b"host"), seen.get(b"origin"), seen.get(b"sec-fetch-site"))
        if said.origin is not None or said.site is not None:
            self._look_at_page(exchange, scope, said, known.rules, tls)
        return keyed, peer

    def _look_at_page(self, exchange: Asked, scope: Scope | None, said: Said, rules: Rules, tls: bool) -> None:
        if said.origin is not None and origin.is_allowed_origin(said.origin, rules):
            exchange.extra = exchange.extra + origin.shared_with(said.origin)
        elif not origin.is_own_page(said, tls=tls) and (scope is not None or exchange.method not in ("GET", "HEAD")):
            raise OriginRefused(
                f"a page of {(said.origin or b'another site').decode('latin-1')[:100]} sent this",
                hint="allow it with `allowed_origins` in models.yaml, if it is yours",
            )

    def preflight(self, exchange: Asked) -> Fields | None:
        """The answer's fields where a browser asks whether a page may send something; None where none asks.

        Raises OriginRefused.
        """
        wanted = dict(exchange.headers)
        said = wanted.get(b"origin")
        if said is None or b"access-control-request-method" not in wanted:
            return None
        if not origin.is_allowed_origin(said, _Known(self._settings()).rules):
            raise OriginRefused(
                f"pages of {said.decode('latin-1')[:100]} may not ask here",
                hint="allow it with `allowed_origins` in models.yaml, if it is yours",
            )
        private = wanted.get(b"access-control-request-private-network") == b"true"
        return origin.preflight(said, wanted.get(b"access-control-request-headers"), private)

    def needs_key(self, where: Listen, settings: Settings) -> bool:
        """Whether nobody is let in at `where` without one."""
        if where.path is not None or where.insecure:
            return False
        return settings.require_keys or not (self._insecure or is_loopback(where))

    # How much.

    def admit(
        self, exchange: Admitted, model: str, body: bytes, method: str = "POST", path: str | None = None
    ) -> Ticket | Unbounded | None:
        """See `corral.gateway.gate.Gate`."""
        caller = exchange.caller
        assert isinstance(caller, Caller)
        if self.recorder.on:
            self.recorder.models(exchange, model, body)
        path = exchange.path if path is None else path
        tokens = sizes.takes_tokens(method, path)
        key = caller.key
        if key is None:
            return self._unbounded(model, tokens) if tokens or not exchange.inner else None
        ticket = Ticket(self._desk, key, model, tokens)
        known = self._settings().models.get(model)
        if not key.may_use((model, *known.aliases) if known is not None else (model,)):
            raise Forbidden(
                f"the key {key.id} may not use {model}", hint="GET /v1/models lists what it may use", model=model
            )
        if exchange.inner and not tokens:
            return None  # a part of a request that is counted itself
        size = sizes.NOTHING
        if tokens and key.limits.counts_tokens:
            context, engine = (known.context, known.engine) if known is not None else (None, None)
            size = sizes.size_of(path, body, context, engine)
        ticket._account, ticket._admission, ticket.saved = self._desk.admit(key, size)
        if (each := ticket._admission.each) is not None:
            ticket.body = sizes.limited(body, each, path)
        return ticket

    def _unbounded(self, model: str, tokens: bool) -> Unbounded:
        of_kind = self._free[tokens]
        if (found := of_kind.get(model)) is None:
            if len(of_kind) >= _MODELS:  # many that were asked for once
                of_kind.clear()
            found = of_kind[model] = Unbounded(self._desk, model, tokens)
        return found


class Admitted(Recordable, Protocol):
    """What is looked at of an exchange whose caller is known."""

    inner: bool

    @property
    def caller(self) -> object: ...


def _token(seen: dict[bytes, bytes]) -> bytes | None:
    """The key that came, in the first of the fields in which clients send theirs."""
    given = seen.get(b"authorization")
    if given is not None and given[:7].lower() == b"bearer ":
        return given[7:].strip()
    return seen.get(b"x-api-key") or seen.get(b"api-key")
