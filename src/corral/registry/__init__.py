"""Registries and other sources of models.

egress
    `Egress`, the one HTTP client: every byte to or from another machine, under one `EgressPolicy`.
auth
    `Auth`: which credentials a registry gets, from the files and helper programs that docker and podman use; tokens.
source
    the contract: a `Ref` resolves to a `RemoteModel`, whose `RemoteBlob`s are opened at any offset, again and again.
`OciRegistry`
    the source that keeps OCI's distribution specification, and the one that models are pushed to.

ref → source.resolve → RemoteModel → (models.downloads opens its blobs) → store. Nothing here knows the store.
"""
