"""Numbers that are drawn many at a time are still all new."""

import re
from itertools import islice

from sidecar import randomness


def test_no_number_comes_twice_and_each_has_128_bits() -> None:
    drawn = [*islice(randomness.numbers(), 1000), *islice(randomness.numbers(), 1000)]
    assert len(set(drawn)) == 2000
    assert all(re.fullmatch(r"[0-9a-f]{32}", number) for number in drawn)
    for position in range(32):
        assert len({number[position] for number in drawn}) == 16
