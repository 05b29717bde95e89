"""Bubblewrap for tests: whether it works here."""

from __future__ import annotations

import pytest

from corral.hardware import cgroups, confinement


def bubblewrap() -> None:
    """Skips the test where bubblewrap is not here, or not permitted."""
    try:
        confinement.check(*confinement.find_bwrap())
    except confinement.NoSandbox as why:
        pytest.skip(f"{why}: `make registry` installs bubblewrap")


def limits() -> cgroups.Tree:
    """Where groups can be made; the test is skipped where they cannot."""
    try:
        return cgroups.find()
    except cgroups.NotPermitted as why:
        pytest.skip(f"no control groups with limits for this user: {why}")
