"""When a failed request is sent again: how often, and after how long."""

from __future__ import annotations

import random

from corral.errors import (
    CorralError,
    DigestMismatch,
    NotAllowedThere,
    NotInRegistry,
    RateLimited,
    RegistryError,
    Unavailable,
)
from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential back-off with jitter. Tries are counted from the last progress, not from the start."""

    tries: int = 9
    first_s: float = 0.25
    most_s: float = 30.0
    most_asked_s: float = 300.0  # a Retry-After beyond this is not waited for

    def allowed(self, error: CorralError) -> int:
        """How many failures such as `error` may come one after another before it is passed on."""
        if isinstance(error, (RateLimited, Unavailable)):
            return self.tries
        if isinstance(error, (NotAllowedThere, NotInRegistry, DigestMismatch)) or type(error) is RegistryError:
            return min(2, self.tries)  # a token, a signed address or a mirror that is behind: once more may help
        return 0

    def delay_s(self, error: CorralError, failures: int) -> float | None:
        """Seconds to wait after the `failures`th failure in a row; None when trying again is no use."""
        if failures > self.allowed(error):
            return None
        asked = error.details.get("retry_after_s")
        if isinstance(asked, (int, float)) and asked >= 0:
            if asked > self.most_asked_s:
                return None
            return float(asked) * random.uniform(1.0, 1.1)
        most = min(self.most_s, self.first_s * 2 ** min(failures - 1, 30))
        return random.uniform(most / 2, most)
