"""A function for a process of a pool. The process imports it by name, and it cannot import a test."""


def raise_(error: Exception) -> None:
    raise error
