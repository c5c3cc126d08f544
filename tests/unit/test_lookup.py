"""What is looked up for a text: where, how much, and when it ends. No token depends on it."""

from __future__ import annotations

from edge.memory.sizes import PROPOSED
from edge.model.lookup import FIRST, MATCH, MISSES, MOST, ROW, START, Lookup


def written(lookup: Lookup, tokens: list[int], room: int = 100) -> int:
    """Forwards that this text takes, where each proposal is verified as decoding does it."""
    forwards = at = 0
    while at < len(tokens) - 1:
        lookup.wrote(tokens[at])
        proposed = lookup.propose(room)
        forwards += 1
        right = 0
        while right < len(proposed) and tokens[at + 1 + right : at + 2 + right] == [proposed[right]]:
            lookup.wrote(proposed[right])
            right += 1
        if proposed:
            lookup.verified(len(proposed), right)
        at += 1 + right
    return forwards


def test_an_earlier_line_is_followed_from_its_first_token() -> None:
    line = list(range(100, 140))
    lookup = Lookup([1, 2, 3], [line])
    lookup.wrote(100)
    assert lookup.propose(100) == line[1 : 1 + PROPOSED]
    assert lookup.propose(3) == line[1:4]
    assert written(Lookup([1, 2, 3], [line]), line) == 5  # 39 tokens, 8 of each but the last


def test_it_is_left_at_another_token_and_taken_up_behind_it() -> None:
    """Two tokens stand in the place of one; none is proposed before the line is found again."""
    line = list(range(100, 120))
    lookup = Lookup([], [line])
    for token in (100, 101, 102, 7, 8):
        lookup.wrote(token)
        assert lookup.propose(3) == ([] if token < 10 else line[token - 99 : token - 96])
    lookup.wrote(104)
    assert lookup.propose(3) == [105, 106, 107]


def test_a_line_that_the_text_has_left_is_no_more_proposed() -> None:
    line = list(range(100, 120))
    lookup = Lookup([], [line])
    for token in (100, *range(MISSES), 103):
        lookup.wrote(token)
    assert lookup.propose(3) == []  # one token alone is no sign any more
    lookup.wrote(104)
    assert lookup.propose(3) == [105, 106, 107]  # two are


def test_the_text_itself_is_searched_for_its_last_tokens() -> None:
    """The last place counts, and what is written is searched as the prompt is."""
    before = [5, 6, 20, 21, 5, 6, 30, 31, 32, 33]
    assert MATCH == 2
    lookup = Lookup(before)
    lookup.wrote(5)
    assert lookup.propose(100) == []
    lookup.wrote(6)
    assert lookup.propose(100) == before[6 : 6 + FIRST]
    for token in (40, 41, 42, 43, 44, 40, 41, 42):
        lookup.wrote(token)
    assert lookup.propose(1) == [43]


def test_what_is_right_makes_the_next_find_longer() -> None:
    lookup = Lookup(list(range(100)))
    for token in (10, 11, 12):
        lookup.wrote(token)
    assert len(lookup.propose(100)) == FIRST
    lookup.verified(FIRST, FIRST)
    assert len(lookup.propose(100)) == 2 * FIRST
    lookup.verified(2 * FIRST, 2 * FIRST - 1)
    assert len(lookup.propose(100)) == FIRST


def test_ends_are_never_proposed() -> None:
    lookup = Lookup([5, 6, 7, 8, 1, 9], [], {1})
    for token in (5, 6, 7):
        lookup.wrote(token)
    assert lookup.propose(100) == [8]
    lookup.wrote(8)
    assert lookup.propose(100) == []


def refuted(lookup: Lookup, times: int) -> int:
    """How many tokens are proposed where each proposal is wrong."""
    rows = 0
    for _ in range(times):
        for token in (1, 2, 3):
            lookup.wrote(token)
        proposed = lookup.propose(100)
        if proposed:
            rows += len(proposed)
            lookup.verified(len(proposed), 0)
    return rows


def test_a_text_in_which_nothing_is_right_is_left_alone() -> None:
    """What it may cost in all: as many rows as were there to lose."""
    lookup = Lookup([1, 2, 3, 4] * 30)
    rows = refuted(lookup, 40)
    assert 0 < rows * ROW <= START


def test_earlier_success_buys_no_endless_failure() -> None:
    line = list(range(100, 200))
    lookup = Lookup([], [line, [1, 2, 3, 4] * 30])
    assert written(lookup, line) < 20
    assert refuted(lookup, 60) * ROW <= MOST


def test_no_place_no_proposal() -> None:
    lookup = Lookup([], [[1, 2, 3]])
    lookup.wrote(1)
    assert lookup.propose(0) == []
