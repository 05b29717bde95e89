"""Images of engines on this machine: built here from Corral's own Containerfiles, fetched, and locked to digests.

- **recipe**: one Containerfile with its bases and arguments (pure); the files are in `files/`.
- **program**: the `podman` or `docker` program, asked about images and told to build, fetch and remove them.
- **shelf**: the entries of the image catalogue, each with what of it is here.
- **lock**: digests by reference, in images.lock.json of the configuration directory.

Needs no server: the images belong to the user who calls, and a server of the same user finds them.
"""
