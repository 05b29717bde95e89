"""The routes of keys, usage and recorded requests as methods; see `client` for the whole client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from corral.calls import Calls

if TYPE_CHECKING:
    from corral.api_access import KeyAsk, KeyInfo, KeyMade, Recording, UsageRow


class AccessClient(Calls):
    """Keys and what they took, of one server."""

    def list_keys(self) -> list[KeyInfo]:
        from corral.api_access import KeyInfo

        return self._list(KeyInfo, "/control/keys")

    def create_key(self, ask: KeyAsk) -> KeyMade:
        from corral.api_access import KeyMade

        return self._one(KeyMade, "POST", "/control/keys/create", ask)

    def revoke_key(self, key: str) -> KeyInfo:
        from corral.api_access import KeyInfo, KeyPick

        return self._one(KeyInfo, "POST", "/control/keys/revoke", KeyPick(key))

    def rotate_key(self, key: str, overlap_s: float) -> KeyMade:
        from corral.api_access import KeyMade, RotateAsk

        return self._one(KeyMade, "POST", "/control/keys/rotate", RotateAsk(key, overlap_s))

    def key_usage(self, key: str | None, since_s: float | None, by: tuple[str, ...]) -> list[UsageRow]:
        from corral.api_access import UsageRow

        asked: dict[str, Any] = {"by": ",".join(by), "since": 0 if since_s is None else max(1, round(since_s))}
        if key is not None:
            asked["key"] = key
        return self._list(UsageRow, f"/control/usage?{urlencode(asked)}")

    def recording(self) -> Recording:
        from corral.api_access import Recording

        return self._one(Recording, "GET", "/control/requests")

    def record(self, *, on: bool, bodies: bool = False) -> Recording:
        from corral.api_access import RecordAsk, Recording

        return self._one(Recording, "POST", "/control/requests/record", RecordAsk(on, bodies))
