"""Orders of several items."""

from shop.prices import gross


def total(prices):
    """What a customer pays: the sum of the net prices, with tax."""
    return sum(gross(price) for price in prices)


def largest(prices):
    """The largest price; 0 without any."""
    best = 0
    for price in prices:
        if price > best:
            best = price
    return best


def split(prices, budget):
    """The prices up to a budget, in order, and those beyond it."""
    chosen, rest = [], []
    for price in prices:
        if sum(chosen) + price <= budget:
            chosen.append(price)
        else:
            rest.append(price)
    return chosen, rest
