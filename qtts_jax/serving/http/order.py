"""Requests of one client, spoken in the order in which they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qtts_jax.errors import BusyError


class ClientOrder:
    """Lets one request of a client run at a time; those of different clients run together.

    Args:
        most: requests of one client that may wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def turn(self, client: str | None) -> AsyncIterator[None]:
        """Wait for this client's earlier requests; None does not wait.

        Raises:
            BusyError: too many of its requests wait already.
        """
        if client is None:
            yield
            return
        if self._users.get(client, 0) > self._most:
            raise BusyError(f"{self._most} requests of this client are waiting; try again later.")
        lock = self._locks.setdefault(client, asyncio.Lock())
        self._users[client] = self._users.get(client, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._users[client] -= 1
            if not self._users[client]:
                del self._users[client], self._locks[client]
