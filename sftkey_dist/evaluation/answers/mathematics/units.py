"""Units of measure. Each is a number times base units, so that 70 mm equals 7 cm, and 5 m/s differs from 5 km/h."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from sftkey_dist.evaluation.answers.mathematics.notation import CURRENCY_DOLLAR

_DEFINED = {
    # time
    "s": ("1 s", "sec secs second seconds"),
    "min": ("60 s", "mins minute minutes Minute Minuten minutos 分钟"),
    "h": ("3600 s", "hr hrs hour hours Stunde Stunden heure heures hora horas 小时"),
    "day": ("86400 s", "days d Tag Tage jours jour días 天"),
    "week": ("604800 s", "weeks wk wks"),
    "ms": ("1/1000 s", "millisecond milliseconds"),
    "month": ("1 month", "months"),
    "yr": ("12 month", "yrs year years"),
    "decade": ("120 month", "decades"),
    "century": ("1200 month", "centuries"),
    # length
    "m": ("1 m", "metre metres meter meters"),
    "dm": ("1/10 m", "decimetre decimetres decimeter decimeters"),
    "cm": ("1/100 m", "centimetre centimetres centimeter centimeters cms"),
    "mm": ("1/1000 m", "millimetre millimetres millimeter millimeters"),
    "μm": ("1/1000000 m", "um micron microns micrometre micrometres micrometer micrometers"),
    "nm": ("1/1000000000 m", "nanometre nanometres nanometer nanometers"),
    "km": ("1000 m", "kilometre kilometres kilometer kilometers kms"),
    "inch": ("127/5000 m", "inches in"),
    "ft": ("381/1250 m", "foot feet"),
    "yd": ("1143/1250 m", "yard yards yds"),
    "mi": ("201168/125 m", "mile miles"),
    # mass
    "g": ("1 g", "gram grams gramme grammes gm gms"),
    "kg": ("1000 g", "kilogram kilograms kilo kilos kgs"),
    "mg": ("1/1000 g", "milligram milligrams"),
    "tonne": ("1000000 g", "tonnes"),
    "lb": ("45359237/100000 g", "lbs pound pounds"),
    "oz": ("45359237/1600000 g", "ounce ounces"),
    "ton": ("1 ton", "tons"),
    # volume
    "l": ("1/1000 m^3", "litre litres liter liters L"),
    "ml": ("1/1000000 m^3", "millilitre millilitres milliliter milliliters mL"),
    "gallon": ("1 gallon", "gallons gal"),
    "quart": ("1/4 gallon", "quarts"),
    "pint": ("1/8 gallon", "pints"),
    "cup": ("1/16 gallon", "cups"),
    # area
    "hectare": ("10000 m^2", "hectares"),
    "acre": ("1 acre", "acres"),
    # speed
    "mph": ("201168/450000 m s^-1", ""),
    "kph": ("5/18 m s^-1", "kmh kmph"),
    # angle
    "°": ("1 °", "degree degrees deg"),
    "rad": ("1 rad", "radian radians"),
    # temperature; only differences can be converted
    "°C": ("1 °C", "celsius centigrade"),
    "°F": ("1 °F", "fahrenheit"),
    "K": ("1 K", "kelvin kelvins"),
    # mechanics and electricity
    "N": ("1000 g m s^-2", "newton newtons"),
    "J": ("1000 g m^2 s^-2", "joule joules"),
    "kJ": ("1000000 g m^2 s^-2", "kilojoule kilojoules"),
    "W": ("1000 g m^2 s^-3", "watt watts"),
    "kW": ("1000000 g m^2 s^-3", "kilowatt kilowatts"),
    "Pa": ("1000 g m^-1 s^-2", "pascal pascals"),
    "kPa": ("1000000 g m^-1 s^-2", "kilopascal kilopascals"),
    "Hz": ("1 s^-1", "hertz"),
    "kHz": ("1000 s^-1", "kilohertz"),
    "MHz": ("1000000 s^-1", "megahertz"),
    "V": ("1 V", "volt volts"),
    "A": ("1 A", "amp amps ampere amperes"),
    "C": ("1 A s", "coulomb coulombs"),
    "ohm": ("1 V A^-1", "ohms"),
    "eV": ("1 eV", "electronvolt electronvolts"),
    "keV": ("1000 eV", ""),
    "MeV": ("1000000 eV", ""),
    "GeV": ("1000000000 eV", ""),
    "cal": ("1 cal", "calorie calories"),
    "kcal": ("1000 cal", "kilocalorie kilocalories"),
    "mol": ("1 mol", "mole moles"),
    "erg": ("1/10000 g m^2 s^-2", "ergs"),
    # data
    "bit": ("1 bit", "bits"),
    "byte": ("8 bit", "bytes"),
    "KB": ("8000 bit", "kB kilobyte kilobytes"),
    "MB": ("8000000 bit", "megabyte megabytes"),
    "GB": ("8000000000 bit", "gigabyte gigabytes"),
    "TB": ("8000000000000 bit", "terabyte terabytes"),
    # money
    "USD": ("1 USD", f"dollar dollars bucks {CURRENCY_DOLLAR}"),
    "cent": ("1/100 USD", "cents ¢"),
    "EUR": ("1 EUR", "euro euros €"),
    "GBP": ("1 GBP", "£ sterling"),
    "pence": ("1/100 GBP", "penny"),
    "JPY": ("1 JPY", "yen ¥"),
    "INR": ("1 INR", "Rs rs rupee rupees ₹"),
    "CNY": ("1 CNY", "yuan rmb RMB 元 块"),
    "CHF": ("1 CHF", "francs franc"),
    "KRW": ("1 KRW", "₩"),
    "RUB": ("1 RUB", "₽ rouble roubles ruble rubles"),
    # parts
    "%": ("1/100", "percent"),
    "‰": ("1/1000", "permille"),
}
ONE_LETTER = frozenset("mshdglLNJWVACK")
CURRENCY_MARKS = {CURRENCY_DOLLAR: "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₩": "KRW", "₽": "RUB"}
AMBIGUOUS = {"lb": "GBP", "C": "°C", "F": "°F"}
"""Units that share their name with another unit, and the other unit."""
CURRENCY_CODES = {"USD", "EUR", "GBP", "JPY", "INR", "CNY", "CHF", "KRW", "RUB"}


@dataclass(frozen=True)
class Measure:
    """A unit.

    Attributes:
        factor: number of base units.
        bases: the power of each base unit, by name.
    """

    factor: Fraction
    bases: tuple[tuple[str, int], ...]


def unit_named(word: str, *, one_letter: bool) -> str | None:
    """The name of the unit that a word is, such as ``cm`` for ``centimetres``; None for another word.

    The case of letters such as ``m`` and ``M`` matters, the case of words does not.
    """
    if len(word) == 1 and word.isalpha() and not (one_letter and word in ONE_LETTER):
        return None
    found = _names().get(word)
    return found or (_names().get(word.lower()) if len(word) > 3 or word.lower() in ("cm", "km", "kg", "rs") else None)


def measure(name: str) -> Measure:
    """A unit in terms of base units; an unknown unit, such as ``apple``, is a base unit itself."""
    definition = _DEFINED.get(name)
    if definition is None:
        return Measure(Fraction(1), ((name, 1),))
    factor, *bases = definition[0].split()
    powers = (base.partition("^") for base in bases)
    return Measure(Fraction(factor), tuple((base, int(power or 1)) for base, _, power in powers))


@cache
def _names() -> dict[str, str]:
    return {alias: name for name, (_, aliases) in _DEFINED.items() for alias in (name, *aliases.split())}
