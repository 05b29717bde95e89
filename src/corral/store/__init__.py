"""The model store: a plain OCI image layout on disk."""
