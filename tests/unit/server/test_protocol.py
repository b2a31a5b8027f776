"""The short way through the protocol: what takes it, what does not, and its own time limit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from ansible_collections.edgeai.fleet.plugins.module_utils.server import protocol
from ansible_collections.edgeai.fleet.plugins.module_utils.server.inference import Answer

HEAD = b"POST /short HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The normal way: says so after it has read the body."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"normal"})


def ask(url: str, headers: Any, body: bytes) -> Answer:
    return Answer(200, b"short:" + body, {})


async def talk(pieces: list[bytes], pause: float, body_timeout: float, wanted: int) -> bytes:
    """Send ``pieces`` with a pause between them; return what came back until ``wanted`` answers or the end."""
    loop = asyncio.get_running_loop()
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    made = protocol.protocol_class(lambda url: url == "/short", ask, body_timeout)
    server = await loop.create_server(
        lambda: made(config=config, server_state=ServerState(), app_state={}, _loop=loop), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    answer = b""
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(pause)
    try:
        while answer.count(b"HTTP/1.1 ") < wanted or not answer.endswith((b"normal", b"}", b"!")):
            part = await asyncio.wait_for(reader.read(4096), 5.0)
            if not part:
                break
            answer += part
    finally:
        writer.close()
        server.close()
    return answer


def run(pieces: list[bytes], pause: float = 0.0, body_timeout: float = 5.0, wanted: int = 1) -> bytes:
    return asyncio.run(talk(pieces, pause, body_timeout, wanted))


def test_a_whole_request_takes_the_short_way() -> None:
    assert run([HEAD % 2 + b"\r\nx!"]).endswith(b"\r\n\r\nshort:x!")


def test_pieces_take_it_too() -> None:
    whole = HEAD % 2 + b"\r\nx!"
    assert run([whole[:9], whole[9:40], whole[40:-1], whole[-1:]], pause=0.02).endswith(b"short:x!")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /other HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n",
        b"PUT /short HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n",
        b"POST /short HTTP/1.0\r\nHost: d\r\nContent-Length: 2\r\n",
        HEAD % 2 + b"Expect: 100-continue\r\n",
        HEAD % 2 + b"Upgrade: h2c\r\nConnection: upgrade\r\n",
    ],
)
def test_everything_else_goes_the_normal_way(head: bytes) -> None:
    assert run([head + b"\r\nx!"]).endswith(b"normal")


def test_a_body_too_large_for_the_event_loop_goes_the_normal_way() -> None:
    size = protocol.INLINE_BYTES + 1
    assert run([HEAD % size + b"\r\n" + b"x" * size]).endswith(b"normal")


def test_chunked_bodies_go_the_normal_way() -> None:
    head = b"POST /short HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert run([head + b"2\r\nx!\r\n0\r\n\r\n"]).endswith(b"normal")


def test_two_lengths_are_refused() -> None:
    assert run([HEAD % 2 + b"Content-Length: 3\r\n\r\nx!"]).startswith(b"HTTP/1.1 400 ")


def test_both_ways_on_one_connection_answer_in_order() -> None:
    short, normal = HEAD % 2 + b"\r\nx!", b"GET /short HTTP/1.1\r\nHost: d\r\n\r\n"
    answer = run([short + normal + short + short + normal], wanted=5)
    bodies = [part.split(b"\r\n\r\n", 1)[1] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"short:x!", b"normal", b"normal", b"normal", b"normal"] or bodies == [
        b"short:x!",
        b"normal",
        b"short:x!",
        b"short:x!",
        b"normal",
    ]


def test_a_client_that_wants_to_close_is_let_go() -> None:
    answer = run([HEAD % 2 + b"Connection: close\r\n\r\nx!"])
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"short:x!")


def test_a_body_that_never_comes_is_408_and_the_end() -> None:
    answer = run([HEAD % 9 + b"\r\nx"], body_timeout=0.1)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 0.1 s" in answer
