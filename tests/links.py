"""Network links that a test can delay, make lossy, or cut in silence: TCP proxies."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine
from typing import Any

Pair = tuple[int, int]

#: What TCP waits before it sends a lost segment again: a proxy shows loss as that delay.
_RETRANSMIT_S = 0.2


class Links:
    """One proxy for each ordered pair of replicas. ``port[i, j]`` is where i reaches j.

    ``delay_s[i, j]`` holds back what i sends to j; a share ``loss[i, j]`` of it comes late, as what
    was lost and sent again; ``cut`` pairs deliver nothing, and say nothing. With ``clients``, one
    more number, that of the replicas, stands for all clients.
    """

    def __init__(self, ports: list[int], *, clients: bool = False) -> None:
        nodes = range(len(ports) + clients)
        self.pairs = [(i, j) for i in nodes for j in nodes if i != j]
        self.delay_s: dict[Pair, float] = dict.fromkeys(self.pairs, 0.0)
        self.loss: dict[Pair, float] = dict.fromkeys(self.pairs, 0.0)
        self.cut: set[Pair] = set()
        self.port: dict[Pair, int] = {}
        self._servers: list[asyncio.Server] = []
        self._random = random.Random(1)
        self._target = dict(enumerate(ports))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        for pair in self.pairs:
            if pair[1] in self._target:
                self.port[pair] = self._run(self._listen(pair))

    def isolate(self, replica: int) -> None:
        """Cut every link of one replica, both ways."""
        self.cut |= {pair for pair in self.pairs if replica in pair}

    def disturb(self, replica: int, *, delay_s: float, loss: float) -> None:
        """Make every link of one replica slow and lossy, both ways."""
        for pair in self.pairs:
            if replica in pair:
                self.delay_s[pair], self.loss[pair] = delay_s, loss

    def heal(self) -> None:
        """Deliver everything at once again, what was held back first."""
        self.cut.clear()
        self.delay_s = dict.fromkeys(self.pairs, 0.0)
        self.loss = dict.fromkeys(self.pairs, 0.0)

    def close(self) -> None:
        """End all connections and the thread."""
        self._run(self._cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel(self) -> None:
        for server in self._servers:
            server.close()  # first: what it accepts is one more task
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self, pair: Pair) -> int:
        i, j = pair

        async def accept(near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
            try:
                far, far_out = await asyncio.open_connection("127.0.0.1", self._target[j])
            except OSError:
                near_out.close()
                return
            await asyncio.gather(
                self._pump(near, far_out, (i, j)), self._pump(far, near_out, (j, i))
            )

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: Pair
    ) -> None:
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        reading = asyncio.ensure_future(self._read(source, held, way))
        try:
            while True:
                arrived, data = await held.get()
                while way in self.cut or self._loop.time() < arrived + self.delay_s[way]:
                    await asyncio.sleep(0.01)
                if not data:
                    break
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            reading.cancel()
            sink.close()

    async def _read(
        self, source: asyncio.StreamReader, held: asyncio.Queue[tuple[float, bytes]], way: Pair
    ) -> None:
        data = b"-"
        while data:
            try:
                data = await source.read(1 << 20)
            except OSError:
                data = b""
            late = _RETRANSMIT_S * (self._random.random() < self.loss[way])
            await held.put((self._loop.time() + late, data))
