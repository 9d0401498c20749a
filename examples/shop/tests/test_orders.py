from shop.orders import largest, split, total


def test_total():
    assert total([100, 200]) == 375


def test_largest():
    assert largest([3, 7, 5]) == 7


def test_largest_of_none():
    assert largest([]) == 0


def test_split():
    assert split([3, 4, 5], 8) == ([3, 4], [5])
