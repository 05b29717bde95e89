"""The gateway: the HTTP server in front of everything, and the only one that clients see.

- connection: one client's TCP or unix connection: heads and bodies in, strictly read; answers out, in order.
- exchange: one request and the way back to its client; the seam behind which the HTTP server can be replaced.
- route: a method and a path, its handler, and its line in the API document, all in one table.
- proxy: peek at a body's model, resolve it, hold a lease, send the request up, relay the answer down.
- upstream: one request to one engine, on a link: a fresh connection, or one that was kept for a moment.
- listener: an address with its own default model; `Listeners` opens, changes and closes them.
- host: the daemon as seen from here.

Bytes come in at a listener, become an exchange, find their route, and either are answered here (control, lists,
errors) or pass through the proxy to an engine and back, whole events at a time and never faster than the client reads.
"""
