"""What every store does with calls that wait for a person."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.policy.confirmation import MOST_WAITING, MOVES
from sidecar.records import Confirmation
from sidecar.stores import Store, TooManyWait
from tests.policy.confirming import confirmation
from tests.stores import NOON

ID = "a" * 32
OTHER_ID = "b" * 32


def one(**changes: object) -> Confirmation:
    return confirmation(**{"created_at": NOON, "expires_at": NOON + 60, **changes})


async def state_of(store: Store, confirmation_id: str = ID) -> str | None:
    found = await store.confirmation("acme", confirmation_id)
    return None if found is None else found.state


async def test_what_was_kept_is_read_back(store: Store) -> None:
    assert await store.keep(one(), NOON) == one()

    assert await store.confirmation("acme", ID) == one()
    assert await store.account_of_approval(ID) == "acme"


async def test_nothing_is_found_of_another_account_or_binding(store: Store) -> None:
    await store.keep(one(), NOON)

    assert await store.confirmation("other", ID) is None
    assert await store.account_of_approval(OTHER_ID) is None
    assert not await store.move("other", ID, "approve", NOON)


@pytest.mark.parametrize("moves", [[], ["approve"], ["decline"]])
async def test_a_repeated_call_finds_the_one_that_is_open(store: Store, moves: list[str]) -> None:
    await store.keep(one(), NOON)
    for move in moves:
        assert await store.move("acme", ID, move, NOON)

    found = await store.keep(one(id=OTHER_ID), NOON + 1)

    assert found.id == ID
    assert found == await store.confirmation("acme", ID)
    assert await store.confirmation("acme", OTHER_ID) is None
    assert await store.account_of_approval(OTHER_ID) is None


@pytest.mark.parametrize(
    "moves", [["withdraw"], ["approve", "spend"], ["approve", "withdraw"], ["decline", "withdraw"]]
)
async def test_one_that_is_over_makes_room_for_a_new_one(store: Store, moves: list[str]) -> None:
    await store.keep(one(), NOON)
    for move in moves:
        assert await store.move("acme", ID, move, NOON)

    assert (await store.keep(one(id=OTHER_ID), NOON + 1)).id == OTHER_ID

    assert (await store.keep(one(id="c" * 32), NOON + 2)).id == OTHER_ID
    assert not await store.move("acme", ID, "approve", NOON)
    assert await state_of(store, OTHER_ID) == "waiting"


async def test_one_that_has_expired_makes_room_for_a_new_one(store: Store) -> None:
    await store.keep(one(), NOON)

    assert (await store.keep(one(id=OTHER_ID, expires_at=NOON + 120), NOON + 60)).id == OTHER_ID


@pytest.mark.parametrize("move", ["approve", "decline", "spend"])
async def test_one_that_has_expired_is_decided_no_more(store: Store, move: str) -> None:
    await store.keep(one(), NOON)
    if move == "spend":
        await store.move("acme", ID, "approve", NOON)

    assert not await store.move("acme", ID, move, NOON + 60)
    assert await store.move("acme", ID, "withdraw", NOON + 60)


async def test_every_move_is_possible_from_its_states_alone(store: Store) -> None:
    ways = {"waiting": [], "approved": ["approve"], "declined": ["decline"], "withdrawn": ["withdraw"]}
    ways["spent"] = ["approve", "spend"]
    for number, (state, way) in enumerate(ways.items()):
        for turn, (move, (before, after)) in enumerate(MOVES.items()):
            name = f"{number}{turn}"
            await store.keep(one(id=name, binding=name), NOON)
            for step in way:
                assert await store.move("acme", name, step, NOON)

            assert await store.move("acme", name, move, NOON) is (state in before)
            assert await state_of(store, name) == (after if state in before else state)


async def test_of_many_that_spend_at_once_one_succeeds(store: Store) -> None:
    await store.keep(one(), NOON)
    await store.move("acme", ID, "approve", NOON)

    spent = await asyncio.gather(*[store.move("acme", ID, "spend", NOON) for _ in range(20)])

    assert sorted(spent) == [False] * 19 + [True]


async def test_of_a_yes_and_a_withdrawal_at_once_no_call_passes_after_the_withdrawal(store: Store) -> None:
    await store.keep(one(), NOON)
    await store.move("acme", ID, "approve", NOON)

    spent, withdrawn = await asyncio.gather(
        store.move("acme", ID, "spend", NOON), store.move("acme", ID, "withdraw", NOON)
    )

    assert spent is not withdrawn


async def test_of_many_calls_at_once_one_is_kept(store: Store) -> None:
    kept = await asyncio.gather(*[store.keep(one(id=f"{number:032x}"), NOON) for number in range(20)])

    assert len({each.id for each in kept}) == 1


async def waits(store: Store, number: int, now: float = NOON, **changes: object) -> bool:
    """Keep one for a binding of its own; return whether there was room."""
    name = f"{number:032x}"
    try:
        return (await store.keep(one(id=name, binding=name, **changes), now)).id == name
    except TooManyWait:
        return False


async def test_only_so_many_approvals_of_an_account_wait(store: Store) -> None:
    assert [await waits(store, number) for number in range(MOST_WAITING + 1)] == [True] * MOST_WAITING + [False]

    assert await store.confirmation("acme", f"{MOST_WAITING:032x}") is None
    assert await store.account_of_approval(f"{MOST_WAITING:032x}") is None
    assert await waits(store, 200, account="other")
    assert await waits(store, 201, kind="question")
    assert (await store.keep(one(binding=f"{3:032x}"), NOON)).id == f"{3:032x}"


@pytest.mark.parametrize("move", ["approve", "decline", "withdraw"])
async def test_one_that_is_decided_makes_room_for_another_that_waits(store: Store, move: str) -> None:
    for number in range(MOST_WAITING):
        await waits(store, number)

    assert await store.move("acme", f"{5:032x}", move, NOON)

    assert [await waits(store, number) for number in (200, 201)] == [True, False]


async def test_those_that_have_expired_make_room_for_others_that_wait(store: Store) -> None:
    for number in range(MOST_WAITING - 1):
        await waits(store, number)
    await waits(store, 199, expires_at=NOON + 120)

    assert await waits(store, 200, NOON + 60, expires_at=NOON + 180)
    assert await store.confirmation("acme", f"{199:032x}") is not None


async def test_who_decided_is_kept(store: Store) -> None:
    await store.keep(one(), NOON)
    await store.move("acme", ID, "approve", NOON, "cli")
    await store.move("acme", ID, "spend", NOON)

    found = await store.confirmation("acme", ID)

    assert found is not None
    assert (found.state, found.decided_by) == ("spent", "cli")


async def test_all_approvals_are_listed_and_no_questions(store: Store) -> None:
    await store.keep(one(), NOON)
    await store.keep(one(id=OTHER_ID, account="other"), NOON)
    await store.keep(one(id="c" * 32, binding="q", kind="question"), NOON)

    assert sorted([each.id async for each in store.approvals()]) == [ID, OTHER_ID]
    assert await store.account_of_approval("c" * 32) is None


async def test_what_may_be_used_once_is(store: Store) -> None:
    used = await asyncio.gather(*[store.use_once("acme", "n", NOON + 60, NOON) for _ in range(10)])

    assert sorted(used) == [False] * 9 + [True]
    assert await store.use_once("other", "n", NOON + 60, NOON)


async def test_what_is_over_is_not_used(store: Store) -> None:
    assert not await store.use_once("acme", "n", NOON, NOON)
