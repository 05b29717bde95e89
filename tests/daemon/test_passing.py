"""Messages with sockets between two processes."""

from __future__ import annotations

import asyncio
import socket

from corral.handover.passing import Message, Way


async def test_messages_and_sockets_keep_their_order() -> None:
    """However much is sent at once, each message comes whole, in order, with the socket that it was sent with."""
    one, other = socket.socketpair()
    heard: list[tuple[Message, socket.socket | None]] = []
    ended = asyncio.Event()
    sending = Way(one, lambda message, sock: None, lambda: None)
    hearing = Way(other, lambda message, sock: heard.append((message, sock)), ended.set)
    kept = []
    for number in range(200):
        ours, theirs = socket.socketpair()
        kept.append(ours)
        if number % 3:
            sending.say({"n": number, "text": "é" * (number * 40)}, theirs)
        else:
            theirs.close()
            sending.say({"n": number})
    await sending.finish()
    await asyncio.wait_for(ended.wait(), 20)
    assert [message["n"] for message, _ in heard] == list(range(200))
    for (message, sock), ours in zip(heard, kept, strict=True):
        assert (sock is None) is (message["n"] % 3 == 0)
        if sock is not None:
            sock.sendall(b"%d" % message["n"])
            assert ours.recv(10) == b"%d" % message["n"]
            sock.close()
        ours.close()
    hearing.close()


async def test_an_end_is_told_once() -> None:
    """When the other end closes, it is told; what is said afterwards is dropped, its socket closed."""
    one, other = socket.socketpair()
    ends: list[int] = []
    ended = asyncio.Event()

    def end() -> None:
        ends.append(1)
        ended.set()

    way = Way(one, lambda message, sock: None, end)
    other.close()
    await asyncio.wait_for(ended.wait(), 20)
    spare, far = socket.socketpair()
    way.say({"n": 1}, spare)
    assert spare.fileno() == -1
    far.close()
    way.close()
    assert ends == [1]
