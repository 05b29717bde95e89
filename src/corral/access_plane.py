"""`AccessPlane`: what the control routes ask about keys, usage and recorded requests, over the desk and the gate."""

from __future__ import annotations

import dataclasses

from corral import access_words as words
from corral import clock
from corral.access.desk import Desk, asked_of
from corral.access.gate import AccessGate
from corral.access.keys import Key
from corral.api_access import (
    KeyAsk,
    KeyInfo,
    KeyMade,
    KeyPick,
    RecordAsk,
    RecordedRequest,
    Recording,
    RotateAsk,
    UsageRow,
)
from corral.events import EventLog


class AccessPlane:
    """The gateway's `AccessHost`."""

    def __init__(self, desk: Desk, gate: AccessGate, events: EventLog) -> None:
        self._desk, self._gate, self._events = desk, gate, events

    async def keys(self) -> list[KeyInfo]:
        return [self._info(key) for key in self._desk.keys.values()]

    async def create_key(self, ask: KeyAsk) -> KeyMade:
        words.checked(ask)
        expires = None if ask.expires_in_s is None else clock.wall() + ask.expires_in_s
        made = await self._desk.create(ask.name, words.scopes_of(ask), ask.models, words.limits_of(ask), expires)
        self._say(made.key, "was made")
        return KeyMade(self._info(made.key), made.secret)

    async def revoke_key(self, ask: KeyPick) -> KeyInfo:
        key = await self._desk.revoke(ask.key)
        self._say(key, "was revoked")
        return self._info(key)

    async def rotate_key(self, ask: RotateAsk) -> KeyMade:
        made = await self._desk.rotate(ask.key, max(0.0, ask.overlap_s))
        self._say(made.key, "has a new secret")
        return KeyMade(self._info(made.key), made.secret)

    async def key_usage(self, key: str | None, since_s: float | None, by: tuple[str, ...]) -> list[UsageRow]:
        known = self._desk.keys
        used = await self._desk.usage(words.since_day(since_s), asked_of(known, key))
        return words.usage_rows(used, by, lambda each: known[each].name if each in known else "")

    def recording(self) -> Recording:
        recorder = self._gate.recorder
        fields = [each.name for each in dataclasses.fields(RecordedRequest)]
        kept = [RecordedRequest(**{name: getattr(each, name) for name in fields}) for each in recorder.records]
        return Recording(recorder.on, recorder.bodies, kept)

    def record(self, ask: RecordAsk) -> Recording:
        self._gate.recorder.turn(on=ask.on, bodies=ask.bodies)
        bodies = ", with their bodies" if ask.on and ask.bodies else ""
        self._events.post("access.recording", f"requests are {'' if ask.on else 'no longer '}recorded{bodies}")
        return self.recording()

    def _info(self, key: Key) -> KeyInfo:
        taken = self._desk.taken(key)
        return words.key_info(key, today=taken.day, month=taken.month, running=taken.running)

    def _say(self, key: Key, what: str) -> None:
        self._events.post("access.key", f"the key {key.id} ({key.label}) {what}", key=key.id)
