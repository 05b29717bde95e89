"""The chaos suite: real engines under many requests at a time, hurt at random moments.

`World` has the models, the daemon and its event feed; `Clients` keep asking and write each `Outcome` down; a `Fault` is
done to one `Case` (fault, phase, engine); `Storm` runs cases one after the other and judges; `Table` says how fast.
"""
