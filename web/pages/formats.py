"""How numbers are written for people: with the language's own signs, and no more digits than anybody reads."""

from __future__ import annotations

#: Sign of decimals, and what stands between thousands: a narrow space that does not break.
_SIGNS = {"en": (".", ","), "ru": (",", "\u202f")}
_STEP = 1024.0


def plural(language: str, n: float) -> int:
    """Which form of a word goes with a number: the CLDR's cardinal rules.

    >>> [plural("ru", n) for n in (1, 3, 5, 11, 21, 1.5)]
    [0, 1, 2, 2, 0, 1]
    """
    if language != "ru":
        return 0 if n == 1 else 1
    if n != int(n):
        return 1
    ten, hundred = n % 10, n % 100
    if ten == 1 and hundred != 11:
        return 0
    return 1 if 2 <= ten <= 4 and not 12 <= hundred <= 14 else 2


def number(language: str, value: float, digits: int = 0) -> str:
    """
    >>> number("en", 12345), number("ru", 0.5, 1)
    ('12,345', '0,5')
    """
    point, thousands = _SIGNS[language]
    text = f"{value:,.{digits}f}"
    return text.replace(",", "\0").replace(".", point).replace("\0", thousands)


def seconds(language: str, value: float) -> str:
    """
    >>> [seconds("en", value) for value in (0.043, 3.21, 48.0, 3700.0)]
    ['0.04', '3.2', '48', '3,700']
    """
    return number(language, value, 2 if value < 1 else 1 if value < 10 else 0)


def money(language: str, currency: str, value: float) -> str:
    """An amount in ``currency``.

    >>> [money("en", "USD", value).replace("\\N{NO-BREAK SPACE}", "_") for value in (0.0394, 12.5, 0)]
    ['0.039_USD', '12.50_USD', '0_USD']
    """
    return f"{number(language, value, 0 if value == 0 else 3 if value < 1 else 2)}\N{NO-BREAK SPACE}{currency}"


def size(language: str, value: float) -> tuple[str, str]:
    """Bytes as a number and its unit.

    >>> size("en", 3_500_000), size("en", 12)
    (('3.3', 'mb'), ('12', 'b'))
    """
    units = ["b", "kb", "mb", "gb", "tb"]
    while value >= _STEP and len(units) > 1:
        value /= _STEP
        del units[0]
    return number(language, value, 0 if units[0] == "b" or value >= 100 else 1), units[0]
