"""Docker Model Runner's API, version 1.2.6: what its clients send and expect, in terms of Corral's store and engines.

- names: the ways to spell a model, and how Docker's lists show one.
- shapes: a model, a running engine and the rest as its JSON has them.
- lines: a download, a push or a load as its lines of progress, plain or with `"` written as `&#34;`.
- configure: `_configure`, the flags that it may set, and what it comes to here.
- table: every route, and what becomes of it.

Pure: what the time is comes in as an argument. The handlers around it are `gateway/docker_*.py`.
"""
