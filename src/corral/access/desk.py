"""`Desk`: keys and what each has taken, in memory, and a task that writes it down in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from corral import clock
from corral.access import keys
from corral.access.account import Account, Admission, Refused
from corral.access.budget import Budget, period_of
from corral.access.figures import Slab, UsageKey, Used
from corral.access.keys import Key, Limits, Scope
from corral.access.sizes import Size
from corral.errors import CallerError, CorralError, LimitReached, NoSuchKey
from corral.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from corral.access.book import Book

WRITE_S: Final = 2.0
"""Usage is written this long after it came, all of it at once; slabs at once."""
MOST_KEYS: Final = 10_000
_ID_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True)
class Made:
    """A key and its secret, which nobody can tell again."""

    key: Key
    secret: str


@dataclass(frozen=True, slots=True)
class Taken:
    """Tokens of a key's budgets, None where it has none, and its running requests."""

    day: int | None
    month: int | None
    running: int


class Desk:
    """Everything but `open` and the `async` methods is for the event loop's thread, and does not wait."""

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda text: None) -> None:
        self._path, self._warn = path, warn
        self.keys: dict[str, Key] = {}
        self._accounts: dict[str, Account] = {}
        self._spent: dict[str, dict[str, int]] = {}
        self._used: dict[tuple[str, str, str], list[int]] = {}  # as `UsageKey` and `Used`, which cost more to make
        self._totals: dict[str, Used] = {}  # by key, of what is not in `_used` any more
        self._book: Book | None = None
        self._wake = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None
        self._waiting: list[tuple[list[tuple[Budget, str, int]], asyncio.Future[None]]] = []
        self._writing = asyncio.Lock()
        self._today = ("", 0.0)
        self._failing = False

    async def open(self) -> None:
        """Reads the file, where there is one. Raises StoreError."""
        if self._path.exists():
            await asyncio.to_thread(self._read)

    def _read(self) -> None:
        book = self._opened()
        self.keys, self._spent = book.keys(), book.spent()

    def _opened(self) -> Book:
        from corral.access.book import Book  # SQLite is loaded by those who have something to keep

        if self._book is None:
            self._book = Book(self._path)
        return self._book

    # Keys.

    async def reload(self) -> None:
        """Takes up what another process has written. Raises StoreError."""
        async with self._writing:
            if self._path.exists():
                self.keys = (await asyncio.to_thread(self._opened)).keys()

    async def create(
        self, name: str, scopes: Sequence[Scope], models: Sequence[str], limits: Limits, expires_wall_s: float | None
    ) -> Made:
        """Raises CallerError, StoreError."""
        made = new_key(self.keys, name, scopes, models, limits, expires_wall_s)
        await self._put(made.key)
        return made

    async def revoke(self, wanted: str) -> Key:
        """From now on it does not count. Raises NoSuchKey, StoreError."""
        key = find(self.keys, wanted)
        if key.revoked_wall_s is None:
            key = dataclasses.replace(key, revoked_wall_s=clock.wall())
        self.keys[key.id] = key  # at once, whatever the disk says
        await self._put(key)
        return key

    async def rotate(self, wanted: str, overlap_s: float) -> Made:
        """A new secret; the one before counts for `overlap_s` more. Raises NoSuchKey, CallerError, StoreError."""
        made = rotated(find(self.keys, wanted), overlap_s)
        await self._put(made.key)
        return made

    async def _put(self, key: Key) -> None:
        async with self._writing:
            await asyncio.to_thread(lambda: self._opened().put(key))
        self.keys[key.id] = key

    # Requests.

    def admit(self, key: Key, size: Size) -> tuple[Account, Admission, asyncio.Future[None] | None]:
        """Takes what a request of `size` may need. With a future, that has to be awaited before the request runs: what
        it may spend is not written down yet. Raises LimitReached."""
        now_wall_s = clock.wall()
        account = self._accounts.get(key.id)
        if account is None:
            account = self._accounts[key.id] = Account(key.limits, self._spent.get(key.id, {}), now_wall_s)
        admission = account.admit(size, clock.monotonic(), now_wall_s)
        if isinstance(admission, Refused):
            raise _limit_reached(admission)
        saved: asyncio.Future[None] | None = None
        if admission.held:
            if not account.covered:
                saved = asyncio.get_running_loop().create_future()
                levels = [(budget, budget.period, budget.used + budget.held) for budget in account.budgets]
                self._waiting.append((levels, saved))
            if any(budget.wants is not None for budget in account.budgets):
                self._wake.set()
        return account, admission, saved

    def taken(self, key: Key) -> Taken:
        """What `key` has taken of its budgets, with what is set aside, and how many of its requests run."""
        account = self._accounts.get(key.id)
        if account is None:
            account = Account(key.limits, self._spent.get(key.id, {}), clock.wall())
        by_span = {}
        for budget in account.budgets:
            budget.turn(clock.wall())
            by_span[budget.span] = budget.used + budget.held
        return Taken(by_span.get("day"), by_span.get("month"), account.streams)

    def used(self, key: str, model: str, prompt: int, completion: int) -> None:
        """Counts one request that has ended."""
        where = (self._day(), key, model)
        counts = self._used.get(where) or self._counts(where)
        counts[0] += 1
        counts[1] += prompt
        counts[2] += completion
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(WRITE_S, self._wake.set)

    def totals(self) -> dict[str, Used]:
        """What each key has used since this server started, by its id; empty for those who had none."""
        found = dict(self._totals)
        for (_, key, _), counts in self._used.items():
            _add(found, key, counts, 1)
        return found

    def label_of(self, key: str) -> str:
        """What the key with this id is shown as."""
        return self.keys[key].label if key in self.keys else key

    def _counts(self, where: tuple[str, str, str]) -> list[int]:
        if (counts := self._used.get(where)) is None:
            counts = self._used[where] = [0, 0, 0]
        return counts

    def _day(self) -> str:
        day, until = self._today
        now = clock.wall()
        if not until - 86_400 <= now < until:
            day, until = period_of("day", now), (math.floor(now / 86_400) + 1) * 86_400.0
            self._today = (day, until)
        return day

    async def usage(self, since_day: str = "", key: str | None = None) -> dict[UsageKey, Used]:
        """What was used, the last moments included. Raises StoreError."""
        await self._write()
        if self._book is None and not self._path.exists():
            return {}
        async with self._writing:
            return await asyncio.to_thread(lambda: self._opened().usage(since_day, key))

    # Writing.

    async def run(self) -> None:
        """Writes what is to be written, until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            with contextlib.suppress(CorralError):  # told already
                await self._write()

    async def _write(self) -> None:
        async with self._writing:
            if self._soon is not None:
                self._soon.cancel()
                self._soon = None
            wanted = [
                (budget, budget.period, durable, key)
                for key, account in self._accounts.items()
                for budget in account.budgets
                if (durable := budget.wants) is not None
            ]
            used = {UsageKey(*where): Used(*counts) for where, counts in self._used.items()}
            for where, counts in self._used.items():
                _add(self._totals, where[1], counts, 1)
            self._used = {}
            if not wanted and not used:
                return
            try:
                await asyncio.to_thread(self._write_now, wanted, used)
            except CorralError as error:
                self._failed(error, used)
                raise
            self._failing = False
            for budget, period, durable, _ in wanted:
                budget.written(period, durable)
            self._let_go()

    def _write_now(self, wanted: list[tuple[Budget, str, int, str]], used: dict[UsageKey, Used]) -> None:
        self._opened().write([Slab(key, period, durable) for _, period, durable, key in wanted], used)

    def _let_go(self) -> None:
        """Lets those run whose reservations are written down."""
        still = []
        for levels, saved in self._waiting:
            if saved.done():
                continue
            if all(budget.period != period or budget.durable >= level for budget, period, level in levels):
                saved.set_result(None)
            else:
                still.append((levels, saved))
        self._waiting = still
        if still:
            self._wake.set()  # more was held while we wrote

    def _failed(self, error: CorralError, used: dict[UsageKey, Used]) -> None:
        for where, counts in used.items():  # for the next time
            _add(self._totals, where.key, counts, -1)
            later = self._counts(where)
            later[:] = [each + more for each, more in zip(later, counts, strict=True)]
        waiting, self._waiting = self._waiting, []
        for _, saved in waiting:
            if not saved.done():
                saved.set_exception(error)
        if not self._failing:
            self._failing = True
            self._warn(f"usage and budgets cannot be written: {error.message}")

    async def flush(self) -> None:
        """Writes what is to be written. What fails is told."""
        with contextlib.suppress(CorralError):
            await self._write()

    async def close(self, *, last: bool = True) -> None:
        """Writes what is left. `last`: no request runs any more, so that slabs which were not used up are given back;
        a server that hands over leaves them to the next one."""
        with contextlib.suppress(CorralError):
            await self._write()
            if last and self._book is not None:
                async with self._writing:
                    await asyncio.to_thread(self._book.give_back, self._unused())
        if self._soon is not None:
            self._soon.cancel()
        if self._book is not None:
            self._book.close()
            self._book = None

    def _unused(self) -> list[tuple[Slab, int]]:
        return [
            (Slab(key, budget.period, budget.durable), budget.used)
            for key, account in self._accounts.items()
            for budget in account.budgets
            if budget.used < budget.durable and not budget.held
        ]


def _add(totals: dict[str, Used], key: str, counts: Sequence[int], sign: int) -> None:
    totals[key] = Used(*(each + sign * more for each, more in zip(totals.get(key, (0, 0, 0)), counts, strict=True)))


def find(known: dict[str, Key], wanted: str) -> Key:
    """The key with this id, or the only one with this name. Raises NoSuchKey, and CallerError where several have it."""
    if (key := known.get(wanted)) is not None:
        return key
    named = [key for key in known.values() if key.name == wanted]
    alive = [key for key in named if key.revoked_wall_s is None] or named
    if len(alive) > 1:
        ids = ", ".join(key.id for key in alive[:5])
        raise CallerError(f"{len(alive)} keys are named {wanted[:80]!r}", hint=f"give its id: {ids}")
    if not alive:
        raise NoSuchKey(f"there is no key {wanted[:80]!r}", hint="`corral keys list` shows all, by id and name")
    return alive[0]


def asked_of(known: dict[str, Key], wanted: str | None) -> str | None:
    """The id for which usage is asked: None for all, empty for those who had no key. Raises as `find`."""
    if wanted is None:
        return None
    try:
        return find(known, wanted).id
    except NoSuchKey:
        if wanted not in ("", "-"):
            raise
        return ""


def new_key(
    known: dict[str, Key],
    name: str,
    scopes: Sequence[Scope],
    models: Sequence[str],
    limits: Limits,
    expires_wall_s: float | None,
) -> Made:
    """A key that differs from all known. Raises CallerError."""
    if len(known) >= MOST_KEYS:
        raise CallerError(f"there are {len(known)} keys", hint="more are not kept")
    if not scopes:
        raise CallerError("a key without a scope is good for nothing", hint="name infer, pull, admin or metrics")
    now = clock.wall()
    if expires_wall_s is not None and expires_wall_s <= now:
        raise CallerError("the key would have expired already", hint="give a time to come")
    key_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(keys.ID_CHARS))
    secret = keys.token_of(key_id, secrets.randbits(256))
    key = Key(key_id, name, keys.digest(secret.encode()), frozenset(scopes), tuple(models), limits, now, expires_wall_s)
    return Made(key, secret)


def rotated(key: Key, overlap_s: float) -> Made:
    """`key` with a new secret. Raises CallerError for one that counts no more."""
    now = clock.wall()
    if (problem := key.problem(now)) is not None:
        raise CallerError(f"the key {key.id} {problem}", hint="make a new one: corral keys create")
    secret = keys.token_of(key.id, secrets.randbits(256))
    return Made(
        dataclasses.replace(
            key, digest=keys.digest(secret.encode()), before=key.digest, before_until_wall_s=now + overlap_s
        ),
        secret,
    )


def _limit_reached(refused: Refused) -> LimitReached:
    details = {} if refused.retry_after_s is None else {"retry_after_s": math.ceil(refused.retry_after_s)}
    return LimitReached(refused.text, hint=refused.hint, limit=refused.limit, **details)
