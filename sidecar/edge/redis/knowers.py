"""Who knows where the masters are: sentinels, or a cluster's nodes. Some may be away, and some may be behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Generic, TypeVar

from redis.exceptions import AuthenticationError, RedisError

from sidecar.edge.redis.addresses import Access, Address
from sidecar.edge.redis.commands import Argument
from sidecar.edge.redis.conversation import Conversation
from sidecar.edge.redis.opening import opened, told

ASKING_S: Final = 0.5
"""Who has not answered by then is done without."""
WATCH_S: Final = 1.0
"""How often it is asked while nothing fails: a former master that comes back takes writes until it is told better."""
REST_S: Final = 0.05
"""Between two questions, whatever fails."""

View = TypeVar("View")
Read = Callable[[Address, list[Any]], tuple[int, View]]
"""Makes a view, and how new it is, of somebody's replies."""


class Knowers(Generic[View]):
    """Asks all at once, and takes the newest view as soon as more than half have answered."""

    def __init__(
        self, access: Access, login: Access, question: tuple[tuple[Argument, ...], ...], read: Read[View]
    ) -> None:
        """Ask nobody yet.

        Args:
            access: How to connect to them.
            login: The same with a user and a password, for who asks for one.
            question: The commands that make them say what they know.
            read: See `Read`; what it can't read may raise anything.
        """
        self._access = access
        self._login = login
        self._question = question
        self._read = read
        self._asking_for_login: set[Address] = set()
        self._idle: dict[Address, Conversation] = {}

    async def newest(self, addresses: Iterable[Address]) -> View:
        """Return the newest view.

        Raises:
            ConnectionError: nobody has one.
        """
        asked = [asyncio.ensure_future(self._ask(address)) for address in addresses]
        answers: list[tuple[int, View]] = []
        problems = ["nobody answers"]
        try:
            async with asyncio.timeout(ASKING_S):
                for answer in asyncio.as_completed(asked):
                    try:
                        answers.append(await answer)
                    except (RedisError, OSError) as error:
                        problems.append(f"{type(error).__name__}: {error}")
                    if 2 * len(answers) > len(asked):
                        break
        except TimeoutError:
            pass
        finally:
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if not answers:
            raise ConnectionError(f"nobody says where the masters are ({problems[-1]})")
        return max(answers, key=lambda answer: answer[0])[1]

    async def aclose(self) -> None:
        """Close every connection."""
        idle, self._idle = self._idle, {}
        await asyncio.gather(*[conversation.aclose() for conversation in idle.values()])

    async def _ask(self, address: Address) -> tuple[int, View]:
        needs_login = address in self._asking_for_login
        conversation = self._idle.pop(address, None)
        if conversation is None or not conversation.is_live():
            conversation = await opened(address, self._login if needs_login else self._access)
        replies = await told(conversation, *self._question)
        refused = [reply for reply in replies if isinstance(reply, RedisError)]
        if not refused:
            if self._idle.setdefault(address, conversation) is not conversation:
                conversation.close()
            return self._understood(address, replies)
        conversation.close()
        if isinstance(refused[0], AuthenticationError) and not needs_login:
            self._asking_for_login.add(address)
            return await self._ask(address)
        raise refused[0]

    def _understood(self, address: Address, replies: list[Any]) -> tuple[int, View]:
        try:
            return self._read(address, replies)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise ConnectionError(f"what it says of the masters is unreadable: {error!r}") from error


class Watch:
    """Looks again and again, and at once when told to hurry."""

    def __init__(self, look: Callable[[], Awaitable[object]]) -> None:
        self._look = look
        self._hurried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look on from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def hurry(self) -> None:
        """Look as soon as possible."""
        self._hurried.set()

    async def aclose(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._hurried.clear()
            with contextlib.suppress(RedisError, OSError):  # who waits for it is told; here it is tried again
                await self._look()
            await asyncio.sleep(REST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await self._hurried.wait()
