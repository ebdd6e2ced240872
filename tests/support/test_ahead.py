import threading
from collections.abc import Iterator

import pytest

from embedsmith.support.ahead import one_ahead


def test_the_next_one_is_made_while_one_is_in_use() -> None:
    begun = [threading.Event() for _ in range(3)]

    def make() -> Iterator[int]:
        for number in range(3):
            begun[number].set()
            assert threading.current_thread() is not threading.main_thread()
            yield number

    for number in one_ahead(make()):
        assert number == 2 or begun[number + 1].wait(10)


def test_nothing_is_made_behind_the_last_and_none_twice() -> None:
    made: list[int] = []
    assert list(one_ahead(made.append(number) or number for number in range(4))) == [0, 1, 2, 3]
    assert made == [0, 1, 2, 3]
    assert list(one_ahead(iter([]))) == []
    assert list(one_ahead(iter([None, []]))) == [None, []]


def test_an_error_comes_behind_what_was_made_before_it() -> None:
    found = []
    with pytest.raises(ZeroDivisionError):
        for number in one_ahead(1 // (2 - number) for number in range(5)):
            found.append(number)
    assert found == [0, 1]


def test_left_early_it_makes_one_more_at_most() -> None:
    made: list[int] = []
    before = {*threading.enumerate()}
    numbers = one_ahead(made.append(number) or number for number in range(100))
    next(numbers)
    numbers.close()
    assert len(made) == 2
    assert not {*threading.enumerate()} - before
