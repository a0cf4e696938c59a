"""Numbers in text, as people and models write them: digits of all scripts, separators, words, fractions, units."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

# Canonical unit and factor. Things that are counted (eggs, people) are no units: they are the question's business.
_UNITS: dict[str, tuple[str, str]] = {}


def _define(canonical: str, factor: str, names: str) -> None:
    for name in names.split():
        _UNITS[name.replace("_", " ")] = (canonical, factor)


_define("m", "1", "m metre metres meter meters metro metros mètre mètres metri метр метров метра")
_define("m", "1000", "km kilometre kilometres kilometer kilometers kilómetros quilômetros chilometri kilomètres км")
_define("m", "0.01", "cm centimetre centimetres centimeter centimeters zentimeter centimètres centímetros см")
_define("m", "0.001", "mm millimetre millimetres millimeter millimeters")
_define("mi", "1", "mi mile miles meile meilen millas")
_define("ft", "1", "ft foot feet")
_define("in", "1", "inch inches")
_define("g", "1", "g gram grams gramm gramme grammes gramos grammi г грамм")
_define("g", "1000", "kg kilogram kilograms kilogramm kilo kilos kilogrammes kilogramos кг")
_define("g", "0.001", "mg milligram milligrams")
_define("lb", "1", "lb lbs pound_weight")
_define("s", "1", "s sec secs second seconds sekunde sekunden secondes segundos secondi секунд")
_define("s", "60", "min mins minute minutes minuten minutos minuti минут минуты")
_define("s", "3600", "h hr hrs hour hours stunde stunden heure heures hora horas ore час часа часов")
_define("day", "1", "day days tag tage tagen jour jours día días dia dias giorni дней день 天 日間")
_define("day", "7", "week weeks woche wochen semaine semaines semana semanas settimane")
_define("l", "1", "l liter liters litre litres litros litri")
_define("l", "0.001", "ml milliliter milliliters")
_define("%", "1", "% percent prozent pourcent por_ciento per_cent процентов процента パーセント")
_define("$", "1", "$ dollar dollars usd dólares")
_define("¢", "1", "cent cents ¢ centimes céntimos centesimi")
_define("€", "1", "€ euro euros eur")
_define("£", "1", "£ pound pounds gbp")
_define("¥", "1", "¥ yen 円 円です")
_define("mph", "1", "mph")
_define("km/h", "1", "km/h kmh kph")
_define("°C", "1", "°c celsius")

_WORDS = {
    word: value
    for value, words in {
        0: "zero null zéro cero", 1: "one eins uno", 2: "two zwei deux dos due два",
        3: "three drei trois tres tre три",
        4: "four vier quatre cuatro quattro четыре", 5: "five fünf cinq cinco cinque пять",
        6: "six sechs seis sei шесть",
        7: "seven sieben sept siete sette семь",
        8: "eight acht huit ocho otto восемь", 9: "nine neun neuf nueve nove девять",
        10: "ten zehn dix diez dieci десять", 11: "eleven elf onze once undici",
        12: "twelve zwölf douze doce dodici",
        13: "thirteen dreizehn treize trece", 14: "fourteen vierzehn quatorze catorce",
        15: "fifteen fünfzehn quinze quince",
        16: "sixteen sechzehn seize", 17: "seventeen siebzehn", 18: "eighteen achtzehn", 19: "nineteen neunzehn",
        20: "twenty zwanzig vingt veinte venti двадцать", 30: "thirty dreißig trente treinta trenta",
        40: "forty vierzig quarante cuarenta", 50: "fifty fünfzig cinquante cincuenta",
        60: "sixty sechzig soixante sesenta",
        70: "seventy siebzig setenta", 80: "eighty achtzig ochenta", 90: "ninety neunzig noventa",
    }.items()
    for word in words.split()
}  # fmt: skip
_SCALES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "millions": 10**6, "millionen": 10**6, "millones": 10**6,
    "billion": 10**9, "тысяч": 1000, "tausend": 1000, "mille": 1000, "mil": 1000, "万": 10**4, "億": 10**8, "亿": 10**8,
}  # fmt: skip
_CURRENCY = "$€£¥円"
_NUMBER = re.compile(
    r"(?P<before>[$€£¥])?\s?(?P<sign>(?<![\w\d)])[-−–])?\s?(?P<money>[$€£¥])?"
    r"(?P<digits>\d{1,3}(?:[ \u00a0\u202f.,'’]\d{3})+(?:[.,]\d+)?(?!\d)|\d+(?:[.,]\d+)?|[.,]\d+)"
    r"(?P<fraction>/\d+)?(?:[eE](?P<exponent>[-+]?\d+))?"
)
_AFTER = re.compile(r"\s?(%|°c|°|[$€£¥¢]|[^\W\d_]+(?:/h)?(?:[ _](?:cent|ciento))?)")
_SPELLED = re.compile(r"[^\W\d_]+(?:[- ][^\W\d_]+)*")


@dataclass(frozen=True)
class Quantity:
    value: Decimal
    unit: str | None
    start: int
    end: int

    @property
    def key(self) -> str:
        rounded = self.value.normalize()
        if rounded and len(rounded.as_tuple().digits) > 9:  # 0.333333333333 and 0.3333333333333333 are one answer
            rounded = (+Decimal(f"{rounded:.8e}")).normalize()
        return f"{rounded:f}|{self.unit or ''}"


def quantities(text: str, language_has_comma: bool = False) -> list[Quantity]:
    """All numbers of a folded text, in order; units in their base (1.5 km is 1500 m)."""
    found = [_quantity(match, text, language_has_comma) for match in _NUMBER.finditer(text)]
    return [q for q in found if q is not None]


def _quantity(match: re.Match[str], text: str, has_comma: bool) -> Quantity | None:
    value = _decimal(match["digits"], has_comma)
    if value is None:
        return None
    if match["fraction"] and (divisor := Decimal(match["fraction"][1:])):
        value /= divisor
    if match["exponent"]:
        value = value.scaleb(int(match["exponent"][:4]))
    if match["sign"]:
        value = -value
    end = match.end()
    unit: str | None = None
    if symbol := match["before"] or match["money"]:
        unit = _UNITS[symbol][0]
    after = _AFTER.match(text, end)
    if after and after.group(1) in _SCALES:
        value *= _SCALES[after.group(1)]
        end = after.end()
        after = _AFTER.match(text, end)
    if unit is None and after and after.group(1) in _UNITS:
        unit, factor = _UNITS[after.group(1)]
        value, end = value * Decimal(factor), after.end()
    return Quantity(value, unit, match.start(), end)


def _decimal(digits: str, has_comma: bool) -> Decimal | None:
    """The last separator is decimal unless three digits follow it and it could part thousands."""
    plain = re.sub(r"[ \u00a0\u202f'’]", "", digits)
    points, commas = plain.count("."), plain.count(",")
    if points and commas:
        decimal = max(".", ",", key=plain.rfind)
        plain = plain.replace("," if decimal == "." else ".", "").replace(",", ".")
    elif points > 1 or commas > 1:
        plain = plain.replace(".", "").replace(",", "")
    elif points or commas:
        mark = "." if points else ","
        head, _, tail = plain.partition(mark)
        is_decimal = mark == ("," if has_comma else ".")
        parts_thousands = len(tail) == 3 and 0 < len(head) <= 3 and head != "0" and not is_decimal
        plain = head + tail if parts_thousands else f"{head or '0'}.{tail}"
    try:
        return Decimal(plain)
    except InvalidOperation:
        return None


def spelled(text: str) -> Decimal | None:
    """A text that is a number in words and nothing else: seventy-five, two hundred."""
    parts = re.split(r"[-\s]+", text.strip(" .!*\n"))
    total, current = 0, 0
    for part in parts:
        if part in _WORDS:
            current += _WORDS[part]
        elif part in _SCALES and current:
            current *= _SCALES[part]
            if _SCALES[part] >= 1000:
                total, current = total + current, 0
        elif part not in ("and", "und", "et", "y"):
            return None
    return Decimal(total + current) if parts and any(p in _WORDS for p in parts) else None


_HOW_MANY = re.compile(
    r"\b(?:how many|how much .{0,30} in|wie viele|combien (?:de |d')|cu[aá]nt[oa]s|quant[ie]|quant[oa]s|hoeveel|"
    r"сколько|in)\s*"
    r"([^\W\d_]+)"
)
_CURRENCY_WORDS = ("dollars", "dollar", "euro", "euros", "pounds", "cents")


def asked_unit(question: str) -> str | None:
    """The one unit that a folded question asks for: an answer without any is taken in it."""
    for asked in _HOW_MANY.finditer(question):
        if asked.group(1) in _UNITS and len(asked.group(1)) > 1:
            return asked.group(1)
    money = [mark for mark in _CURRENCY if mark in question]
    words = [w for w in _CURRENCY_WORDS if re.search(rf"\b{w}\b", question)]
    if len(money) + bool(words) == 1:
        return money[0] if money else words[0]
    if re.search(r"\bpercentage\b|\bpercent\b|\bprozent\b", question):
        return "%"
    loose = {w for w in re.findall(r"(?<![\d\s])\s+([^\W\d_]{2,})", question) if w in _UNITS}
    return loose.pop() if len(loose) == 1 else None


def in_unit(quantity: Quantity, unit: str | None) -> Quantity:
    """A bare number as one in the unit that was asked for, if any; cents as a part of the asked currency."""
    canonical, factor = _UNITS[unit] if unit is not None else (None, "1")
    if quantity.unit == "¢" and canonical != "¢":
        base = canonical if canonical and canonical in _CURRENCY else "$"
        return replace(quantity, value=quantity.value / 100, unit=base)
    if quantity.unit is not None or canonical is None:
        return quantity
    return replace(quantity, value=quantity.value * Decimal(factor), unit=canonical)
