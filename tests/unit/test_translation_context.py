"""Which pairs a prompt shows: enough of them, in order, and so that the next prompt resumes from this one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.translation.context import FOLLOWING, Context, arrange
from edge.translation.prompts import Pair


def pairs(count: int, first: int = 0, length: int = 5) -> list[Pair]:
    return [Pair(f"s{n}", "t" * length) for n in range(first, first + count)]


def size(pair: Pair) -> int:
    return len(pair.target)


@given(st.integers(0, 12), st.integers(0, 40), st.integers(1, 9))
def test_at_least_as_many_as_asked_for_and_fewer_than_four_times_as_many(before: int, since: int, keep: int) -> None:
    context = Context(pairs(before), pairs(since, before), keep)
    block, lines = arrange(context, 10_000, size)
    shown = [*block, *lines]
    assert shown == [*context.before, *context.since][before + since - len(shown) :]
    assert min(keep, before + since) <= len(shown) < (1 + FOLLOWING) * keep
    assert context.last() == shown[max(0, len(shown) - keep) :]


@given(st.integers(0, 9), st.integers(0, 30), st.integers(1, 9), st.integers(10, 200))
def test_the_next_prompt_goes_on_from_this_one_or_moves_its_block(
    before: int, since: int, keep: int, room: int
) -> None:
    context = Context(pairs(before), pairs(since, before), keep)
    new = Pair("new", "ttt")
    block, lines = arrange(context, room, size)
    next_block, next_lines = arrange(context.also(new), room, size)
    assert (next_block, next_lines) == (block, [*lines, new]) or not next_lines


@given(st.lists(st.integers(1, 80), max_size=30), st.integers(1, 9))
def test_what_is_shown_fits_the_room(lengths: list[int], keep: int) -> None:
    every = [Pair(f"s{n}", "t" * length) for n, length in enumerate(lengths)]
    for split in (0, len(every) // 2, len(every)):
        block, lines = arrange(Context(every[:split], every[split:], keep), 100, size)
        assert sum(map(size, [*block, *lines])) <= 100
        assert lines or sum(map(size, block)) <= 50


def test_most_units_read_only_what_is_new() -> None:
    moved = 0
    for count in range(1, 121):
        block, _ = arrange(Context(pairs(8), pairs(count, 8), 8), 10_000, size)
        moved += block != arrange(Context(pairs(8), pairs(count - 1, 8), 8), 10_000, size)[0]
    assert moved == 5


def test_no_pair_is_shown_where_none_is_asked_for() -> None:
    assert arrange(Context(pairs(3), pairs(3), 0), 100, size) == ([], [])


def test_a_shorter_context_is_one_block() -> None:
    context = Context(pairs(4), pairs(3, 4), 8)
    assert context.only(None) is context
    assert arrange(context.only(3), 100, size) == (pairs(3, 4), [])
    assert arrange(Context(pairs(2), (), 1).only(3), 100, size) == (pairs(1, 1), [])
