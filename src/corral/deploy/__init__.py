"""Files that let other programs run beside Corral: `corral deploy TARGET` writes them.

- **Site**: where a server is to be reached, and what that takes: a key, an authority to trust (`site`).
- **target**: a pure function from a site and a wish to a `Deployment` (`prometheus`, `grafana`).
- **Deployment**: files, relative to one folder, and the commands that come next (`deployment`).
- **place**: the folder. What somebody changed in it is never overwritten unasked (`place`).

site + wish ─▶ target ─▶ Deployment ─▶ place
"""
