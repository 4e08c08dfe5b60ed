"""What can be done with API keys, on the real embedded store."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.denials import Conflict, Denial, InsufficientScope, InvalidRequest, NotFound, StoreUnavailable
from sidecar.keyring import Keyring, KeyringStore
from sidecar.policy import apikeys, key_requests
from sidecar.records import ApiKey, KeyRecord, StoredKey
from tests.keyrings import START, Bench, opened

DAY_S = 86_400
UNKNOWN = "key_0123456789AB"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as bench:
        yield bench


async def make(bench: Bench, account: str = "acme", name: str = "k", **more: Any) -> tuple[KeyRecord, ApiKey]:
    settings: dict[str, Any] = {"created_by": "u1", "origin": "rest", "granted": ("mcp:full",), **more}
    return await bench.keyring.create(account, name, **settings)


async def rotate(bench: Bench, key_id: str, grace_s: int | None = None, **more: Any) -> tuple[KeyRecord, ApiKey]:
    settings: dict[str, Any] = {"created_by": "u2", "origin": "rest", "granted": ("mcp:full",), **more}
    return await bench.keyring.rotate("acme", key_id, grace_s, **settings)


async def record_of(bench: Bench, key_id: str, account: str = "acme") -> KeyRecord:
    return (await bench.keyring.get(account, key_id)).record


async def refusal(attempt: Awaitable[object]) -> str:
    with pytest.raises(Denial) as caught:
        await attempt
    return caught.value.reason


# Creation


async def test_a_new_key_is_stored_as_asked_for(bench: Bench) -> None:
    record, key = await make(bench, name="report", scopes=["mcp:tools:call", "mcp:tools:call"], expires_in_days=30)
    assert record == replace(
        await record_of(bench, key.id),
        account="acme",
        name="report",
        prefix=key.text[:16],
        scopes=("mcp:tools:call",),
        created_at=START,
        created_by="u1",
        origin="rest",
        lifetime_s=30.0 * DAY_S,
        expires_at=START + 30 * DAY_S,
        revoked_at=None,
        replaced_by=None,
        version=1,
    )
    assert await bench.store.account_of(key.id) == "acme"


async def test_the_key_that_is_shown_matches_the_hash_that_is_stored(bench: Bench) -> None:
    record, key = await make(bench)
    parsed = apikeys.parse(key.text)
    assert parsed.id == record.id
    assert await bench.hasher.verify(parsed.secret, record.secret_hash)


async def test_the_secret_is_in_no_record_and_no_file(bench: Bench, tmp_path: Path) -> None:
    record, key = await make(bench)
    assert all(key.secret not in str(value) for value in asdict(record).values())
    await bench.store.aclose()
    stored = await asyncio.to_thread(lambda: b"".join(path.read_bytes() for path in tmp_path.iterdir()))
    assert record.id.encode() in stored
    assert key.secret.encode() not in stored


async def test_what_is_not_asked_for_has_the_default(bench: Bench) -> None:
    record, _ = await make(bench)
    assert (record.scopes, record.expires_at) == (("mcp:read",), START + 90 * DAY_S)


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "x" * 101}),
        ("name", {"name": "a\nb"}),
        ("name", {"name": None}),
        ("scopes", {"scopes": []}),
        ("scopes", {"scopes": ["mcp:everything"]}),
        ("scopes", {"scopes": "mcp:read"}),
        ("expiresInDays", {"expires_in_days": 0}),
        ("expiresInDays", {"expires_in_days": 3651}),
        ("expiresInDays", {"expires_in_days": True}),
        ("expiresInDays", {"expires_in_days": "30"}),
        ("account", {"account": ""}),
        ("account", {"account": "a b"}),
        ("account", {"account": "x" * 129}),
    ],
)
async def test_bad_input_is_refused_by_the_name_of_its_field(bench: Bench, field: str, asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await make(bench, **asked)
    assert caught.value.message.startswith(f"{field}: ")
    assert await bench.keyring.page("acme") == ([], None)


@pytest.mark.parametrize(
    ("granted", "scopes"),
    [
        (("mcp:read",), ["mcp:full"]),
        (("mcp:read",), ["mcp:read", "mcp:full"]),
        (("mcp:tools:list",), None),
        ((), ["mcp:tools:list"]),
    ],
)
async def test_nobody_makes_a_key_that_may_more_than_they(
    bench: Bench, granted: tuple[str, ...], scopes: list[str] | None
) -> None:
    with pytest.raises(InsufficientScope):
        await make(bench, granted=granted, scopes=scopes)
    assert await bench.keyring.page("acme") == ([], None)


async def test_an_operator_is_bounded_by_no_scope_of_their_own(bench: Bench) -> None:
    record, _ = await make(bench, granted=None, scopes=["mcp:full"], created_by="cli", origin="cli")
    assert (record.scopes, record.created_by, record.origin) == (("mcp:full",), "cli", "cli")


async def test_an_account_has_so_many_active_keys_and_no_more(tmp_path: Path) -> None:
    async with opened(tmp_path, max_per_account=2) as bench:
        first, _ = await make(bench)
        await make(bench, expires_in_days=1)
        with pytest.raises(Conflict, match="key_limit"):
            await make(bench)
        await make(bench, account="other")
        await bench.keyring.revoke("acme", first.id)
        await make(bench)
        with pytest.raises(Conflict, match="key_limit"):
            await make(bench)
        bench.clock.now += DAY_S
        await make(bench)


async def test_keys_made_at_once_do_not_exceed_the_limit(tmp_path: Path) -> None:
    async with opened(tmp_path, max_per_account=3) as bench, asyncio.timeout(30):
        made = await asyncio.gather(*(make(bench) for _ in range(8)), return_exceptions=True)
        assert sum(isinstance(result, Conflict) for result in made) == 5
        assert len((await bench.keyring.page("acme"))[0]) == 3


# Reading


async def test_pages_follow_each_other_newest_first_to_the_end(bench: Bench) -> None:
    made = []
    for _ in range(5):
        bench.clock.now += 1
        made.append((await make(bench))[0].id)
    seen: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor is not None:
        keys, cursor = await bench.keyring.page("acme", 2, cursor)
        seen += [key.record.id for key in keys]
        pages += 1
    assert seen == made[::-1]
    assert pages == 3


async def test_a_page_that_is_just_full_is_the_last(bench: Bench) -> None:
    await make(bench)
    await make(bench)
    assert (await bench.keyring.page("acme", 2))[1] is None


@pytest.mark.parametrize(
    ("limit", "cursor"), [(0, None), (101, None), (True, None), (50, ""), (50, "x"), (50, UNKNOWN)]
)
async def test_a_page_that_cannot_be_is_refused(bench: Bench, limit: int, cursor: str | None) -> None:
    with pytest.raises(InvalidRequest):
        await bench.keyring.page("acme", limit, cursor)


async def test_a_cursor_of_another_account_shows_nothing(bench: Bench) -> None:
    record, _ = await make(bench, account="other")
    await make(bench)
    assert await bench.keyring.page("acme", 50, key_requests.write_cursor(record.id)) == ([], None)


@pytest.mark.parametrize("key_id", [UNKNOWN, "", "key_", "nonsense", "key_0123456789A*", "\ud800"])
async def test_an_unknown_key_is_not_found_whatever_is_done_with_it(bench: Bench, key_id: str) -> None:
    for attempt in (
        bench.keyring.get("acme", key_id),
        bench.keyring.revoke("acme", key_id),
        bench.keyring.usage("acme", key_id),
        rotate(bench, key_id),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_another_accounts_key_is_as_unknown_as_none(bench: Bench) -> None:
    record, _ = await make(bench, account="other")
    for attempt in (
        bench.keyring.get("acme", record.id),
        bench.keyring.revoke("acme", record.id),
        bench.keyring.usage("acme", record.id),
        rotate(bench, record.id),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert await record_of(bench, record.id, "other") == record
    assert await bench.keyring.page("acme") == ([], None)


async def test_usage_has_its_hours_and_days_from_the_start(bench: Bench) -> None:
    record, _ = await make(bench)
    await bench.store.count_refusal("acme", record.id)
    usage = await bench.keyring.usage("acme", record.id)
    assert (len(usage.hours), len(usage.days)) == (48, 30)
    assert (usage.hours[-1].refused, usage.days[-1].refused) == (1, 1)


# Revocation


async def test_a_revoked_key_stays_and_says_so(bench: Bench) -> None:
    record, _ = await make(bench)
    bench.clock.now += 5
    await bench.keyring.revoke("acme", record.id)
    assert await record_of(bench, record.id) == replace(record, revoked_at=START + 5, version=2)


async def test_revoking_twice_changes_nothing(bench: Bench) -> None:
    record, _ = await make(bench)
    await bench.keyring.revoke("acme", record.id)
    once = await record_of(bench, record.id)
    bench.clock.now += 5
    await bench.keyring.revoke("acme", record.id)
    assert await record_of(bench, record.id) == once


class Mute:
    """A store whose notice of a change is lost, once, after the change was made."""

    def __init__(self, store: KeyringStore) -> None:
        self._store = store
        self._is_mute = True
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def replace(self, record: KeyRecord, *, successor: KeyRecord | None = None) -> bool:
        replaced = await self._store.replace(record, successor=successor)
        await self.note_change(record.account)
        return replaced

    async def note_change(self, account: str) -> None:
        if self._is_mute:
            self._is_mute = False
            raise StoreUnavailable("store_unavailable")
        self.told.append(account)


async def test_revoking_again_tells_what_was_not_heard_the_first_time(bench: Bench) -> None:
    """Else the streams of the key, which is revoked by now, would run on."""
    record, _ = await make(bench)
    store = Mute(bench.store)
    keyring = keyring_over(store, bench)
    assert await refusal(keyring.revoke("acme", record.id)) == "store_unavailable"
    assert store.told == []
    await keyring.revoke("acme", record.id)
    assert store.told == ["acme"]


async def test_keys_revoked_at_once_are_revoked_once(bench: Bench) -> None:
    record, _ = await make(bench)
    async with asyncio.timeout(10):
        await asyncio.gather(*(bench.keyring.revoke("acme", record.id) for _ in range(8)))
    assert (await record_of(bench, record.id)).version == 2


# Rotation


async def test_a_rotated_key_has_a_successor_like_itself(bench: Bench) -> None:
    old, _ = await make(bench, name="report", scopes=["mcp:tools:call"], expires_in_days=10)
    bench.clock.now += DAY_S
    new, key = await rotate(bench, old.id)
    assert new.id == key.id != old.id
    assert (new.name, new.scopes, new.lifetime_s) == (old.name, old.scopes, old.lifetime_s)
    assert (new.created_at, new.expires_at) == (START + DAY_S, START + 11 * DAY_S)
    assert (new.created_by, new.version, new.replaced_by, new.revoked_at) == ("u2", 1, None, None)
    assert new.prefix == key.text[:16]
    assert await record_of(bench, new.id) == new
    assert await bench.hasher.verify(key.secret, new.secret_hash)


async def test_the_old_key_works_for_the_grace_time_and_names_its_successor(bench: Bench) -> None:
    old, _ = await make(bench)
    new, _ = await rotate(bench, old.id, 60)
    left = await record_of(bench, old.id)
    assert (left.expires_at, left.replaced_by, left.version) == (START + 60, new.id, 2)
    assert apikeys.status(left, START + 59) == "active"
    assert apikeys.status(left, START + 60) == "expired"


async def test_grace_has_a_default_and_may_be_none_at_all(bench: Bench) -> None:
    one, other = (await make(bench))[0], (await make(bench))[0]
    await rotate(bench, one.id)
    await rotate(bench, other.id, 0)
    assert (await record_of(bench, one.id)).expires_at == START + 3600
    assert apikeys.status(await record_of(bench, other.id), START) == "expired"


async def test_grace_never_lengthens_a_life(bench: Bench) -> None:
    old, _ = await make(bench, expires_in_days=1)
    bench.clock.now += DAY_S - 10
    await rotate(bench, old.id, 604_800)
    assert (await record_of(bench, old.id)).expires_at == old.expires_at


@pytest.mark.parametrize("grace_s", [-1, 604_801, True, 1.0, "60"])
async def test_an_impossible_grace_is_refused(bench: Bench, grace_s: Any) -> None:
    old, _ = await make(bench)
    with pytest.raises(InvalidRequest) as caught:
        await rotate(bench, old.id, grace_s)
    assert caught.value.message.startswith("graceSeconds: ")
    assert await record_of(bench, old.id) == old


async def test_only_an_active_key_without_a_successor_can_be_rotated(bench: Bench) -> None:
    revoked, rotated, expired = [(await make(bench, expires_in_days=days))[0] for days in (2, 2, 1)]
    await bench.keyring.revoke("acme", revoked.id)
    await rotate(bench, rotated.id, 604_800)
    bench.clock.now += DAY_S
    assert await refusal(rotate(bench, revoked.id)) == "key_not_active"
    assert await refusal(rotate(bench, expired.id)) == "key_not_active"
    assert await refusal(rotate(bench, rotated.id)) == "key_replaced"
    assert len((await bench.keyring.page("acme"))[0]) == 4


async def test_rotation_hands_out_no_scope_that_the_caller_lacks(bench: Bench) -> None:
    """Else a token with mcp:read could turn its account's mcp:full key into one in its own hands."""
    old, _ = await make(bench, scopes=["mcp:full"])
    with pytest.raises(InsufficientScope):
        await rotate(bench, old.id, granted=("mcp:read",))
    assert await record_of(bench, old.id) == old


async def test_rotation_is_not_hindered_by_the_limit_of_keys(tmp_path: Path) -> None:
    async with opened(tmp_path, max_per_account=1) as bench:
        old, _ = await make(bench)
        await rotate(bench, old.id)


@pytest.mark.parametrize(
    ("made", "rotated", "origin"),
    [("rest", "rest", "rest"), ("rest", "cli", "rest"), ("cli", "rest", "rest"), ("cli", "cli", "cli")],
)
async def test_a_successor_counts_as_made_by_an_operator_only_if_both_were(
    bench: Bench, made: str, rotated: str, origin: str
) -> None:
    old, _ = await make(bench, origin=made)
    assert (await rotate(bench, old.id, origin=rotated))[0].origin == origin


async def test_of_many_rotations_at_once_one_wins(bench: Bench) -> None:
    old, _ = await make(bench)
    async with asyncio.timeout(30):
        results = await asyncio.gather(*(rotate(bench, old.id) for _ in range(8)), return_exceptions=True)
    lost = [result for result in results if isinstance(result, Conflict)]
    won = [result for result in results if isinstance(result, tuple)]
    assert (len(lost), len(won)) == (7, 1)
    assert {denial.reason for denial in lost} == {"key_replaced"}
    assert (await record_of(bench, old.id)).replaced_by == won[0][0].id
    assert len((await bench.keyring.page("acme"))[0]) == 2


class Interrupted:
    """A store in whose way something else happens, once, just before a record is replaced."""

    def __init__(self, store: KeyringStore, between: Callable[[], Awaitable[object]], times: int = 1) -> None:
        self._store = store
        self._between = between
        self._left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def replace(self, record: KeyRecord, *, successor: KeyRecord | None = None) -> bool:
        if self._left:
            self._left -= 1
            await self._between()
        return await self._store.replace(record, successor=successor)


def interrupted(bench: Bench, between: Callable[[], Awaitable[object]], times: int = 1) -> Bench:
    return replace(bench, keyring=keyring_over(Interrupted(bench.store, between, times), bench))


def keyring_over(store: Any, bench: Bench) -> Keyring:
    return Keyring(
        store,
        bench.hasher,
        default_scopes=("mcp:read",),
        default_expiry_days=90,
        rotation_grace_s=3600,
        max_per_account=50,
        clock=bench.clock,
        entropy=lambda size: bytes(range(size)),
    )


async def test_a_key_revoked_while_it_is_rotated_gets_no_successor(bench: Bench) -> None:
    old, _ = await make(bench)
    racing = interrupted(bench, lambda: bench.keyring.revoke("acme", old.id))
    assert await refusal(rotate(racing, old.id)) == "key_not_active"
    assert [key.record.id for key in (await bench.keyring.page("acme"))[0]] == [old.id]


async def test_a_key_rotated_while_it_is_revoked_is_revoked_all_the_same(bench: Bench) -> None:
    old, _ = await make(bench)
    racing = interrupted(bench, lambda: rotate(bench, old.id))
    await racing.keyring.revoke("acme", old.id)
    left = await record_of(bench, old.id)
    assert left.revoked_at is not None
    assert left.replaced_by is not None


async def test_a_key_rotated_while_it_is_rotated_has_one_successor(bench: Bench) -> None:
    old, _ = await make(bench)
    racing = interrupted(bench, lambda: rotate(bench, old.id))
    assert await refusal(rotate(racing, old.id)) == "key_replaced"
    assert len((await bench.keyring.page("acme"))[0]) == 2


async def test_a_key_that_never_stands_still_is_given_up(bench: Bench) -> None:
    old, _ = await make(bench)

    async def touch() -> None:
        record = await record_of(bench, old.id)
        assert await bench.store.replace(replace(record, version=record.version + 1))

    racing = interrupted(bench, touch, times=1_000)
    assert await refusal(racing.keyring.revoke("acme", old.id)) == "key_busy"


# The end of an account's credentials


async def test_revoking_an_account_ends_what_is_older_and_nothing_else(bench: Bench) -> None:
    old, _ = await make(bench)
    ended, _ = await make(bench)
    other, _ = await make(bench, account="other")
    await bench.keyring.revoke("acme", ended.id)
    bench.clock.now += 10
    young, _ = await make(bench)
    assert await bench.keyring.revoke_account("acme", START + 5) == 1
    assert await bench.store.revoked_before("acme") == START + 5
    assert await bench.store.revoked_before("other") == 0
    assert (await record_of(bench, old.id)).revoked_at == START + 10
    assert (await record_of(bench, young.id)).revoked_at is None
    assert (await record_of(bench, other.id, "other")).revoked_at is None


async def test_a_key_made_within_the_second_before_the_moment_ends(bench: Bench) -> None:
    """Keys are shown in whole seconds and judged in full."""
    early, _ = await make(bench)
    bench.clock.now += 0.5
    late, _ = await make(bench)
    assert await bench.keyring.revoke_account("acme", START + 0.5) == 1
    assert (await record_of(bench, early.id)).revoked_at is not None
    assert (await record_of(bench, late.id)).revoked_at is None


async def test_revoking_an_account_means_now_and_reaches_every_page(bench: Bench) -> None:
    record, _ = await make(bench)
    for number in range(150):
        await bench.store.add(replace(record, id=f"key_{number:012}"), max_active=None, now=START)
    bench.clock.now += 1
    assert await bench.keyring.revoke_account("acme") == 151
    assert await bench.store.revoked_before("acme") == START + 1
    cursor, left = None, []
    for _ in range(2):
        keys, cursor = await bench.keyring.page("acme", 100, cursor)
        left += [key for key in keys if key.record.revoked_at is None]
    assert (left, cursor) == ([], None)


@pytest.mark.parametrize("before", [START + 0.001, START * 1000, 0.0, -1.0, float("nan"), float("inf")])
async def test_a_moment_that_is_not_past_revokes_nothing(bench: Bench, before: float) -> None:
    """It could not be taken back: milliseconds for seconds would lock the account out for ever."""
    record, _ = await make(bench)
    with pytest.raises(InvalidRequest):
        await bench.keyring.revoke_account("acme", before)
    assert await bench.store.revoked_before("acme") == 0
    assert await record_of(bench, record.id) == record


async def test_an_account_that_cannot_be_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidRequest):
        await bench.keyring.revoke_account("a b")


async def test_a_key_left_unmarked_by_a_broken_revocation_cannot_be_rotated(bench: Bench) -> None:
    old, _ = await make(bench)
    await bench.store.revoke_account("acme", START + 1)
    bench.clock.now += 2
    assert await refusal(rotate(bench, old.id)) == "key_not_active"


async def test_a_key_asked_for_before_its_account_was_revoked_counts_as_older(bench: Bench) -> None:
    """Its hash may wait in a queue while the account is revoked."""

    class Slow:
        async def hash(self, secret: str) -> str:
            bench.clock.now += 1
            await bench.keyring.revoke_account("acme")
            return await bench.hasher.hash(secret)

        async def verify(self, secret: str, secret_hash: str) -> bool:
            return await bench.hasher.verify(secret, secret_hash)

    keyring = Keyring(
        bench.store,
        Slow(),
        default_scopes=("mcp:read",),
        default_expiry_days=90,
        rotation_grace_s=3600,
        max_per_account=50,
        clock=bench.clock,
        entropy=lambda size: bytes(range(size)),
    )
    record, _ = await make(replace(bench, keyring=keyring))
    assert record.created_at < await bench.store.revoked_before("acme")


async def test_a_stored_key_is_read_with_its_last_use(bench: Bench) -> None:
    record, _ = await make(bench)
    assert await bench.keyring.get("acme", record.id) == StoredKey(record, None)


async def test_rotating_again_ends_the_one_before_so_that_a_line_never_has_more_than_two(bench: Bench) -> None:
    first, _ = await make(bench)
    second, _ = await rotate(bench, first.id, 604_800)
    third, _ = await rotate(bench, second.id, 604_800)
    records = [await record_of(bench, key.id) for key in (first, second, third)]
    assert [apikeys.status(record, bench.clock()) for record in records] == ["revoked", "active", "active"]


async def test_a_key_counts_as_made_when_it_was_asked_for(bench: Bench) -> None:
    """The caller may be revoked between the asking and the making, which waits for a hash."""
    asked_at = bench.keyring.now
    plan = bench.keyring.plan("k", granted=None)
    bench.clock.now += 5
    await bench.keyring.revoke_account("acme", bench.keyring.now - 1)
    record, _ = await bench.keyring.make("acme", plan, created_by="u1", origin="rest", asked_at=asked_at)
    assert record.created_at < await bench.store.revoked_before("acme")
