"""The grammar of formulas, numbers and quantities.

A text is read completely: every token has a place in the tree, or there is no tree. Existing parsers of LaTeX (sympy,
latex2sympy) were not used, because they skip what they do not know, and without a unit, sign or word, different answers
would become equal.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from sftkey_dist.evaluation.answers.mathematics.formula import CONSTANTS, Apply, Node, Number, Symbol, Unit, units_of
from sftkey_dist.evaluation.answers.mathematics.notation import LINE_BREAK, LONGEST_CHARACTERS, Token, tokens_of
from sftkey_dist.evaluation.answers.mathematics.shorthand import prepared
from sftkey_dist.evaluation.answers.mathematics.units import CURRENCY_CODES, CURRENCY_MARKS, unit_named
from sftkey_dist.evaluation.answers.vocabulary import words

_DEEPEST = 40
_MAX_TOKENS = 400
_MAX_STEPS = 2000
_MAX_DIGITS = 400
_LARGEST_EXPONENT = 400
_GREEK = words(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
    "omicron rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma "
    "Upsilon Phi Psi Omega hbar ell partial nabla infty odot aleph Re Im curl divergence"
)
_FUNCTIONS = words(
    "sin cos tan cot sec csc arcsin arccos arctan asin acos atan sinh cosh tanh coth arcsinh arccosh "
    "arctanh asinh acosh atanh ln log lg exp sqrt cbrt abs max min gcd lcm arg sgn sign det floor "
    "ceil"
)
_INVERTED = words("sin cos tan sinh cosh tanh")
_SPELLED_CONSTANTS = {"pi": "pi", "e": "e", "i": "i", "infinity": "infty", "inf": "infty", "oo": "infty"}
_RELATIONS = {"=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\in": "in", "\\approx": "~"}
_RELATIONS |= {"\\sim": "~", "\\simeq": "~", "\\equiv": "=", "\\cong": "~", "≡": "="}
_ACCENTS = words("vec hat bar overline dot ddot tilde widehat widetilde")
_IGNORED_COMMANDS = words(
    "\\mathrm \\mathbf \\mathit \\mathcal \\mathbb \\mathsf \\text \\rm \\bf \\it \\boldsymbol \\bm \\operatorname"
)
_SCALES = {"lakh": 5, "crore": 7, "tausend": 3, "millionen": 6, "mio": 6, "milliarde": 9, "milliarden": 9, "mrd": 9}
_SCALES |= {
    "millone": 6,
    "quadrillion": 15,
    "hundred": 2,
    "thousand": 3,
    "million": 6,
    "billion": 9,
    "trillion": 12,
    "mn": 6,
    "bn": 9,
    "tn": 12,
}
_SCALE_CHARACTERS = {"万": 4, "萬": 4, "亿": 8, "億": 8}
_SCALE_LETTERS = {"k": 3, "M": 6, "B": 9, "T": 12, "m": 6, "b": 9, "K": 3}
_SCALES_ALONE = {"M", "B"}
"""Letters that scale a number also after a space, at the end of a text; K is the unit kelvin there."""
_COUNTED_IN = {"dozen": 12, "dozens": 12, "score": 20, "gross": 144}
_JOINING_WORDS = words("and or und oder et ou")
_ALTERNATIVE_WORDS = words("or oder ou")
_STOPPING_WORDS = _JOINING_WORDS | words(
    "not but than is are was were so then which because since as if except nor isn't nicht pas no "
    "either neither instead rather minus plus times over for after during within between from"
)
_NO_NOUNS = words(
    "cannot can can't would wrong incorrect false hardly unless will could should might may be been do does did has "
    "have had at below above under minimum maximum factorial doubled halved tenth tenths hundredth hundredths half "
    "halves third thirds quarter quarters fifth fifths root negative positive mod she he it they we i you"
)
"""Words that are not what is counted when they follow a number."""
_FILLING_WORDS = words("more in total altogether of the a an all left each only exactly now overall off")
_POWER_WORDS = {"square": 2, "sq": 2, "cubic": 3, "squared": 2, "cubed": 3}
_PLAIN_LETTERS = 3
"""Number of letters; a longer word is not a product of symbols."""

_END = Token("end", "", 0, 0)
_BOUNDING_WORDS = {("at", "least"): ">=", ("at", "most"): "<=", ("up", "to"): "<="}
_UNIT_MARKS = {"%": "%", "‰": "‰", "°": "°", "¢": "cent"}
_REMAINDER_WORDS = frozenset({"r", "remainder"})
_TIME_OF_DAY = re.compile(r"\d{1,2}(?:\s?:\s?[0-5]\d)+")
_BRACKETS = {"(", "[", "{"}
_PAIRS = [("(", ")"), ("(", "]"), ("[", "]"), ("[", ")"), ("{", "}"), ("\\{", "\\}"), ("]", "["), ("]", "]")]
_ENDING_COMMANDS = words("\\cup \\cap \\} \\end \\pmod \\bmod \\mod \\pm \\mp \\rfloor \\rceil \\to")
_COMPARED_WORDS: dict[str, tuple[str, str]] = {
    "more": ("than", ">"),
    "greater": ("than", ">"),
    "over": ("", ">"),
    "above": ("", ">"),
    "less": ("than", "<"),
    "fewer": ("than", "<"),
    "under": ("", "<"),
    "below": ("", "<"),
}
_AMOUNTS = {"frac", "div", "add", "neg", "pow", "root", "range", "(,)"}
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_BASES |= {"ten": "10", "twelve": "12", "sixteen": "16"}


class NotReadError(Exception):
    """A text is not a formula, or only a part of it is."""


@lru_cache(maxsize=4096)
def read_formula(text: str, *, with_units: bool) -> Node | None:
    """The tree of a whole text; None if it is not a formula.

    Args:
        text: plain or LaTeX, without words around it.
        with_units: whether words after a number are units or what is counted; otherwise letters are symbols.
    """
    if len(text) > LONGEST_CHARACTERS:
        return None
    tokens = tokens_of(prepared(text, with_units=with_units))
    if not tokens or len(tokens) > _MAX_TOKENS:
        return None
    try:
        return _Parser(tokens, with_units).whole()
    except NotReadError:
        return None


def read_prefix(tokens: Sequence[Token]) -> tuple[Node, int] | None:
    """The quantity at the beginning of a sequence of tokens, and its number of tokens; None if there is none."""
    parser = _Parser(tokens, with_units=True)
    try:
        node = parser.item()
    except NotReadError:
        return None
    return node, parser.place


class _Parser:
    """Recursive descent: each method reads one level of the grammar from `place` on.

    Two methods may read a factor, find that it does not fit, and go back. The factor is kept, because reading it again
    would double the work with every level of depth.
    """

    def __init__(self, tokens: Sequence[Token], with_units: bool) -> None:
        self._with_units = with_units
        self._stopping = _STOPPING_WORDS | _NO_NOUNS if with_units else _STOPPING_WORDS
        self._tokens = list(tokens) if with_units else _letters_apart(tokens)
        self._depth = 0
        self._steps = 0
        self._bars_open = 0
        self._reversed_open = 0
        self._read_before: dict[int, tuple[Node, int]] = {}
        self.place = 0

    def whole(self) -> Node:
        """Read a list that ends with the last token."""
        node = self._list()
        if self._next().text == "." and self.place == len(self._tokens) - 1:
            self.place += 1
        if self.place < len(self._tokens):
            raise NotReadError
        return node

    def _list(self) -> Node:
        items, joined_by = [self.item()], set()
        while (separator := self._next().text.lower()) in {",", ";", "&"} | _JOINING_WORDS:
            self.place += 1
            if separator in {",", ";"} and self._next().text.lower() in _JOINING_WORDS:
                separator = self._next().text.lower()
                self.place += 1
            joined_by.add(separator)
            items.append(self.item())
        if len(items) == 1:
            return items[0]
        return _joined(items, joined_by)

    def item(self) -> Node:
        """Read a relation, a range, or a sum; adjacent quantities, such as 2 hours 30 minutes, are one."""
        if self._next().text in _RELATIONS:  # `> 5`, with nothing before it
            sign = _RELATIONS[self._take().text]
            return self._quantity() if sign in "=~" else Apply(f"bound {sign}", (self._sum(),))
        node = self._quantity()
        links: list[tuple[str, Node]] = []
        while self._next().text in _RELATIONS:
            links.append((_RELATIONS[self._take().text], self._quantity()))
        if links:
            node = Apply("relation " + " ".join(sign for sign, _ in links), (node, *(right for _, right in links)))
        if self._next().text in ("\\pmod", "\\bmod", "\\mod"):
            self.place += 1
            node = Apply("modulo", (node, self._argument(whole_number=True)))
        return node

    def _quantity(self) -> Node:
        compared = _COMPARED_WORDS.get(self._next().text.lower()) if self._next().kind == "word" else None
        if compared is not None:
            return self._compared(*compared)
        if self._next().text.lower() in ("between", "from"):
            return self._between_words()
        if (self._next().text.lower(), self._next(1).text.lower()) in _BOUNDING_WORDS:
            sign = _BOUNDING_WORDS[self._take().text.lower(), self._take().text.lower()]
            return Apply(f"bound {sign}", (self._sum(),))
        node = self._sum()
        while self._next().text in ("\\cup", "\\cap"):
            operation, right = self._take().text[1:], self._sum()
            before = node.parts if isinstance(node, Apply) and node.operation == operation else (node,)
            node = Apply(operation, (*before, right))
        while self._next().kind == "number" and _ends_in_unit(node):
            following = self._sum()
            are_one = _ends_in_unit(following) and _has_known_unit(node) and _has_known_unit(following)
            if not are_one or _share_a_unit([node, following]):
                raise NotReadError
            node = _together(node, following)
        if self._next().text.lower() in _REMAINDER_WORDS and self._next(1).kind == "number":
            self.place += 1
            node = Apply("remainder", (node, self._sum()))
        if self._next().text.lower() in ("to", "bis") and self._with_units and self._begins_amount(1):
            self.place += 1
            node = Apply("range", (node, self._sum()))
        return node

    def _begins_amount(self, further: int) -> bool:
        token = self._next(further)
        return token.kind == "number" or token.text in CURRENCY_MARKS or token.text in ("-", "\\frac", "(")

    def _between_words(self) -> Node:
        joining = "and" if self._take().text.lower() == "between" else "to"
        low = self._sum()
        if self._take().text.lower() != joining:
            raise NotReadError
        return Apply("range", (low, self._sum()))

    def _compared(self, following: str, sign: str) -> Node:
        self.place += 1
        if following:
            if self._next().text.lower() != following:
                raise NotReadError
            self.place += 1
        return Apply(f"bound {sign}", (self._sum(),))

    def _sum(self) -> Node:
        node = self._product()
        while self._next().text in ("+", "-", "\\pm", "\\mp", "plus", "minus"):
            sign = self._take().text
            right = self._product()
            if sign in ("-", "minus"):
                node = _difference(node, right)
            else:
                node = Apply("pm" if sign in ("\\pm", "\\mp") else "add", (node, right))
        return node

    def _product(self) -> Node:
        node = self._signed()
        while True:
            if self._next().text in ("*", "times") or self._is_cross():
                self.place += 1
                node = Apply("mul", (node, self._second_operand(node)))
            elif self._next().text == "/" or (self._next().text.lower() == "per" and _ends_in_unit(node)):
                self.place += 1
                node = Apply("div", (node, self._second_operand(node)))
            elif self._next().text.lower() == "per" and self._with_units and isinstance(node, Number):  # 60 per hour
                self.place += 1
                node = Apply("div", (node, self._unit()))
            elif self._begins_factor() or (self._next().kind == "number" and _may_precede_number(node)):
                node = _product_of(node, self._power(node))
            else:
                return node

    def _is_cross(self) -> bool:
        """Whether a letter x is a multiplication sign: in quantities before a number, and before a power of 10."""
        if self._next().text not in ("x", "X") or self._next(1).kind != "number":
            return False
        return self._with_units or (self._next(1).text == "10" and self._next(2).text == "^")

    def _second_operand(self, first: Node) -> Node:
        if self._next().kind in ("word", "text") and _ends_in_unit(first):
            return self._power(first)
        return self._signed()

    def _signed(self) -> Node:
        self._enter()
        if self._next().text.lower() in ("-", "minus", "negative") and self._next().kind in ("mark", "word"):
            self.place += 1
            node: Node = Apply("neg", (self._signed(),))
        elif self._next().text in ("+", "plus"):
            self.place += 1
            node = self._signed()
        elif self._next().text in ("\\pm", "\\mp"):
            self.place += 1
            node = Apply("pm", (Number(Fraction(0)), self._signed()))
        else:
            node = self._power()
        self._depth -= 1
        return node

    def _begins_factor(self) -> bool:
        token = self._next()
        if token.text.lower() in _REMAINDER_WORDS and self._next(1).kind == "number":
            return False
        if token.kind in ("word", "text"):
            return token.text.lower() not in self._stopping | {"per", "to", "bis"}
        if token.kind == "command":
            return token.text not in _RELATIONS and token.text not in _ENDING_COMMANDS
        if (token.text == "|" and self._bars_open) or (token.text == "[" and self._reversed_open):  # it closes one
            return False
        return token.text in {"(", "[", "{", "|", *_UNIT_MARKS} | CURRENCY_MARKS.keys()

    def _power(self, before: Node | None = None) -> Node:
        """Read a factor and what follows it: exponent, index, and signs for factorial, percent and degree."""
        base = self._factor(before)
        while True:
            text = self._next().text
            if text == "^" or (text == "*" and self._next(1).text == "*"):
                self.place += 1
                base = Apply("pow", (base, self._argument(signed=True)))
            elif text == "_":
                self.place += 1
                base = _indexed(base, self._index())
            elif text == "!" and not isinstance(base, Unit):
                self.place += 1
                base = Apply("factorial", (base,))
            elif text == "'" and isinstance(base, Symbol):
                self.place += 1
                base = Symbol(base.name + "'")
            elif text == "(" and isinstance(base, Symbol) and (applied := self._applied(base)) is not None:
                base = applied
            else:
                return base

    def _factor(self, before: Node | None) -> Node:
        if self.place in self._read_before:
            node, self.place = self._read_before.pop(self.place)
            return node
        token = self._take()
        if token.kind == "number":
            return self._number(token)
        if token.kind in ("clock", "date"):
            return self._time(token)
        if token.kind in ("word", "text"):
            self.place -= 1
            return self._word(before)
        if token.kind == "command":
            return self._command(token.text[1:])
        if token.text in CURRENCY_MARKS:
            return self._money(CURRENCY_MARKS[token.text], before)
        if token.text in _UNIT_MARKS:
            return self._mark_of_unit(token.text)
        if token.text in _BRACKETS or (token.text == "]" and before is None):
            return self._bracketed(token.text)
        if token.text == "|":
            return self._absolute_value()
        raise NotReadError

    def _number(self, token: Token) -> Node:
        number, following = _number_in(token), self._next()
        if following.kind in ("word", "text") and not self._is_cross():
            power = _SCALES.get(following.text.lower().removesuffix("s"))
            is_tight = following.start == token.end
            if power is None and self._with_units and is_tight:
                power = _SCALE_LETTERS.get(following.text) if following.text not in ("m", "b", "T") else None
            if power is not None:
                self.place += 1
                return Number(number.value * 10**power)
            if following.text[0] in _SCALE_CHARACTERS:
                return self._scaled_by_character(number, following)
            if (counted := _COUNTED_IN.get(following.text.lower())) is not None:
                self.place += 1
                return Number(number.value * counted)
            if self._with_units and following.text in _SCALES_ALONE and self._next(1) is _END:
                self.place += 1
                return Number(number.value * 10 ** _SCALE_LETTERS[following.text])
            if is_tight and self._with_units and unit_named(following.text, one_letter=True) is None:
                raise NotReadError
        return self._mixed_number(number)

    def _scaled_by_character(self, number: Number, following: Token) -> Node:
        """Read ``2万元``, in which a scaling character and the unit are written together."""
        scaled = Number(number.value * 10 ** _SCALE_CHARACTERS[following.text[0]])
        if len(following.text) == 1:
            self.place += 1
        else:
            self._tokens[self.place] = replace(following, text=following.text[1:], start=following.start + 1)
        return scaled

    def _mixed_number(self, whole: Number) -> Node:
        """Read a mixed number such as ``1 3/4`` or ``1\\frac34``: an integer and a proper fraction."""
        if self._next().text == "\\frac" and whole.value.denominator == 1:
            before = self.place
            fraction = self._factor(None)
            if _is_proper_fraction(fraction):
                return Apply("add", (whole, fraction))
            self._go_back(before, fraction)
        over, slash, under = self._next(), self._next(1), self._next(2)
        is_fraction = (
            over.text.isdecimal() and slash.text == "/" and under.text.isdecimal() and under.start == slash.end
        )
        if not is_fraction or whole.value.denominator != 1 or not 0 < int(over.text) < int(under.text):
            return whole
        self.place += 3
        return Number(whole.value + Fraction(int(over.text), int(under.text)))

    def _time(self, token: Token) -> Node:
        parts = tuple(Number(Fraction(part)) for part in re.findall(r"\d+", token.text.replace(",", "")))
        if token.kind == "date":
            return Apply("date", _with_year_first(parts))
        half = re.search(r"[ap]", token.text.lower())
        if half is not None:
            return Apply(f"clock {half.group()}m", parts)
        return Apply("clock" if _TIME_OF_DAY.fullmatch(token.text) else "clock ratio", parts)

    def _word(self, before: Node | None) -> Node:
        token = self._next()
        lower = token.text.lower()
        is_behind_number = before is not None and _is_amount(before)
        if self._with_units and is_behind_number and lower not in ("pi", *_FUNCTIONS - {"min"}):
            return self._unit()
        if token.kind == "word" and lower in _FUNCTIONS and (len(lower) > 2 or lower in ("ln", "lg")):
            self.place += 1
            return self._function(lower)
        if token.kind == "word" and token.text in _SPELLED_CONSTANTS:
            self.place += 1
            return Symbol(_SPELLED_CONSTANTS[token.text])
        if token.kind == "word" and token.text in _GREEK:
            self.place += 1
            return Symbol(token.text)
        if len(token.text) == 1 and not (is_behind_number and token.kind == "text"):
            self.place += 1
            return Symbol(_SPELLED_CONSTANTS.get(token.text, token.text))
        currency = unit_named(token.text, one_letter=False)
        if currency in CURRENCY_CODES and before is None and currency is not None:
            self.place += 1
            return self._money(currency, None)
        return self._unit()

    def _unit(self) -> Node:
        """Read the words after a number: a known unit, otherwise what is counted, in the singular."""
        power, noun, first = 1, list[str](), self.place
        while self._next().kind in ("word", "text") and self._next().text.lower() not in self._stopping:
            text = self._next().text
            lower = text.lower()
            is_preposition = lower == "in" and self._next(1).kind == "number"  # not the unit inches
            if lower in ("per", "to", "bis") or is_preposition:
                break
            self.place += 1
            if lower == "in" and (noun or self._next().kind in ("word", "text")):
                continue
            if lower in _POWER_WORDS:
                if lower in ("squared", "cubed"):  # the number itself is
                    raise NotReadError
                power = _POWER_WORDS[lower]
                continue
            name = unit_named(text, one_letter=True)
            if name is not None:
                return self._known_unit(name, power)
            if lower not in _FILLING_WORDS:
                noun.append(_singular(text))
        if self.place == first:
            raise NotReadError
        return Unit(" ".join(noun))

    def _known_unit(self, name: str, power: int) -> Node:
        if self._next().text.lower() in ("squared", "cubed"):
            power = _POWER_WORDS[self._take().text.lower()]
        scale = self._next().text.lower()
        if name == "°" and scale in ("celsius", "fahrenheit", "c", "f"):
            self.place += 1
            name = "°" + scale[0].upper()
        unit: Node = Unit(name)
        while self._next().text.lower() in _FILLING_WORDS and self._with_units:
            self.place += 1
        return unit if power == 1 else Apply("pow", (unit, Number(Fraction(power))))

    def _money(self, currency: str, before: Node | None) -> Node:
        """Read an amount of money, with the currency sign before or after the number."""
        if self._next().text == "." and currency == "INR":
            self.place += 1
        if before is not None and self._next().kind != "number":
            return Unit(currency)
        return Apply("mul", (self._signed(), Unit(currency)))

    def _mark_of_unit(self, mark: str) -> Node:
        if mark == "°" and self._next().text in ("C", "F"):
            return Unit("°" + self._take().text)
        return Unit(_UNIT_MARKS[mark])

    def _bracketed(self, opening: str) -> Node:
        self._enter()
        items: list[Node] = []
        if opening == "\\{" and self._next(1).text in (":", "|") and self._next().kind in ("word", "command"):
            return self._set_by_condition()
        closings = {closing for each, closing in _PAIRS if each == opening}
        if not any(token.text in closings for token in self._tokens[self.place :]):  # before the contents are read
            raise NotReadError
        self._reversed_open += opening == "]"
        while self._next().text not in closings:
            items.append(self.item())
            if self._next().text in (",", ";"):
                self.place += 1
            elif self._next().text not in closings:
                raise NotReadError
        closing = self._take().text
        self._reversed_open -= opening == "]"
        self._depth -= 1
        if opening == "]":  # ]0, 1[ is (0, 1)
            opening, closing = "(", ")" if closing == "[" else "]"
        if opening == "{" or (len(items) == 1 and opening in "(["):
            if len(items) == 1:
                return items[0]
            opening, closing = "\\{", "\\}"
        return Apply(f"{opening[-1]},{closing[-1]}", tuple(items))

    def _set_by_condition(self) -> Node:
        """Read the condition of a set such as ``\\{x : x > 2\\}``, which describes the set completely."""
        self.place += 2
        condition = self._list()
        if self._take().text != "\\}":
            raise NotReadError
        self._depth -= 1
        return condition

    def _absolute_value(self) -> Node:
        self._bars_open += 1
        node = self._sum()
        self._bars_open -= 1
        if self._take().text != "|":
            raise NotReadError
        return Apply("abs", (node,))

    def _command(self, name: str) -> Node:
        if name == "frac":
            return _fraction(self._argument(), self._argument())
        if name == "binom":
            return Apply("binom", (self._argument(), self._argument()))
        if name == "sqrt":
            return self._root()
        if name in _FUNCTIONS:
            return self._function(name)
        if name in _ACCENTS:
            return Symbol(f"{name} {_named(self._argument())}")
        if name == "begin":
            return self._matrix()
        if "\\" + name in _IGNORED_COMMANDS:
            return self._factor(None)
        if name in ("lfloor", "lceil"):
            return self._between("r" + name[1:], "floor" if name == "lfloor" else "ceil")
        if name == "{":
            return self._bracketed("\\{")
        if name == "emptyset":
            return Apply("{,}", ())
        if name in ("forall", "exists", "ldots"):
            return Symbol(name)
        if name in ("pi", *_GREEK):
            return Symbol(name)
        raise NotReadError

    def _between(self, closing: str, operation: str) -> Node:
        node = self._sum()
        if self._take().text != "\\" + closing:
            raise NotReadError
        return Apply(operation, (node,))

    def _root(self) -> Node:
        degree: Node = Number(Fraction(2))
        if self._next().text == "[":
            self.place += 1
            degree = self._sum()
            if self._take().text != "]":
                raise NotReadError
        return _root_of(self._argument(whole_number=True), degree)

    def _function(self, name: str) -> Node:
        """Read a function such as ``sin x``, ``sin(2t)``, ``sin^{2} x`` or ``log_2 8``.

        Without brackets, its argument ends at the next sign or function.
        """
        index = self._index_node() if self._next().text == "_" else None
        power: Node | None = None
        if self._next().text == "^":
            self.place += 1
            power = self._argument(signed=True)
        if power == Apply("neg", (Number(Fraction(1)),)) and name in _INVERTED:
            return self._applied_function(f"arc{name}", index)
        node = self._applied_function(name, index)
        return node if power is None else Apply("pow", (node, power))

    def _index_node(self) -> Node:
        self.place += 1
        return self._argument()

    def _applied_function(self, name: str, index: Node | None) -> Node:
        self._enter()
        if self._next().text in ("(", "{", "["):
            argument = self._factor(None)
            if self._next().text == "^" and name not in ("exp", "sqrt"):
                self.place += 1
                argument = Apply("pow", (argument, self._argument(signed=True)))
        else:
            argument = self._signed()
            while self._begins_factor() and not self._begins_function():
                argument = _product_of(argument, self._power(argument))
        self._depth -= 1
        arguments = argument.parts if isinstance(argument, Apply) and argument.operation == "(,)" else (argument,)
        if name == "sqrt":
            return Apply("pow", (argument, Number(Fraction(1, 2))))
        if name == "cbrt":
            return _root_of(argument, Number(Fraction(3)))
        if name == "exp":
            return Apply("pow", (Symbol("e"), argument))
        return Apply(name if index is None else f"{name}_", arguments if index is None else (*arguments, index))

    def _begins_function(self) -> bool:
        token = self._next()
        return token.text.removeprefix("\\").lower() in _FUNCTIONS

    def _applied(self, name: Symbol) -> Node | None:
        """Read ``f(x)`` or ``I(0)``: a symbol before one symbol, or numbers, in brackets; otherwise it is a product."""
        if name.name in CONSTANTS:
            return None
        before = self.place
        self.place += 1
        arguments = self._bracketed("(")
        parts = arguments.parts if isinstance(arguments, Apply) and arguments.operation == "(,)" else (arguments,)
        if name.name in "fghFGHuP" or all(isinstance(part, Number | Symbol) for part in parts):
            return Apply(f"apply {name.name}", parts)
        self._go_back(before, arguments)
        return None

    def _go_back(self, place: int, read: Node) -> None:
        """Go back to the beginning of a factor that has been read, and keep the factor."""
        self._read_before[place] = read, self.place
        self.place = place

    def _argument(self, *, signed: bool = False, whole_number: bool = False) -> Node:
        """Read the argument of a command: a group in braces, or one token, or one digit of several, as in TeX."""
        self._enter()
        token = self._next()
        if token.text == "{":
            self.place += 1
            node = self._bracketed("{")
        elif token.kind == "number" and not (signed or whole_number) and token.text.isdecimal() and len(token.text) > 1:
            first, rest = replace(token, text=token.text[0]), replace(token, text=token.text[1:])
            self._tokens[self.place : self.place + 1] = [first, rest]
            self.place += 1
            node = Number(Fraction(int(first.text)))
        elif signed and token.text == "-":
            self.place += 1
            node = Apply("neg", (self._argument(whole_number=True),))
        elif token.kind == "number":  # alone, as a fraction or a word behind it belongs to the command's own result
            node = _number_in(self._take())
        else:
            node = self._factor(None)
        self._depth -= 1
        return node

    def _index(self) -> str:
        """Read an index such as ``{max}``, ``1`` or ``\\odot`` as a text."""
        if self._next().text != "{":
            return self._take().text
        depth, pieces = 0, list[str]()
        while True:
            text = self._take().text
            depth += (text == "{") - (text == "}")
            if depth == 0:
                return "".join(pieces)
            pieces.append("" if text == "{" or text in _IGNORED_COMMANDS else text)

    def _matrix(self) -> Node:
        name = self._environment()
        if name not in ("pmatrix", "bmatrix", "matrix", "vmatrix", "Bmatrix", "array"):
            raise NotReadError
        rows: list[list[Node]] = [[]]
        while self._next().text != "\\end":
            if self._next().text == LINE_BREAK:
                self.place += 1
                rows.append([])
            elif self._next().text == "&":
                self.place += 1
            else:
                rows[-1].append(self._sum())
        self.place += 1
        self._environment()
        matrix = Apply("matrix", tuple(Apply("row", tuple(row)) for row in rows if row))
        return Apply("det", (matrix,)) if name == "vmatrix" else matrix

    def _environment(self) -> str:
        if self._take().text != "{":
            raise NotReadError
        name = ""
        while (text := self._take().text) != "}":
            name += text
        return name

    def _next(self, further: int = 0) -> Token:
        place = self.place + further
        return self._tokens[place] if place < len(self._tokens) else _END

    def _take(self) -> Token:
        if self.place >= len(self._tokens):
            raise NotReadError
        self.place += 1
        return self._tokens[self.place - 1]

    def _enter(self) -> None:
        self._depth += 1
        self._steps += 1
        if self._depth > _DEEPEST or self._steps > _MAX_STEPS:
            raise NotReadError


def _letters_apart(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with short words split into symbols, which are multiplied, unless a longer word is next to them."""
    apart: list[Token] = []
    for place, token in enumerate(tokens):
        beside = [*tokens[max(0, place - 1) : place], *tokens[place + 1 : place + 2]]
        follows_number = place > 0 and (tokens[place - 1].kind == "number" or tokens[place - 1].text in _POWER_WORDS)
        is_counted = follows_number and token.start > tokens[place - 1].end and len(token.text) == _PLAIN_LETTERS
        ends = place + 1 == len(tokens) or tokens[place + 1].text in ("^", "/", ".")
        is_unit = (follows_number or (ends and place > 0)) and unit_named(token.text, one_letter=False) is not None
        is_word = token.kind != "word" or is_counted or is_unit or any(_is_long_word(each, token) for each in beside)
        apart += [token] if is_word else _letters_of(token)
    return apart


def _is_long_word(token: Token, beside: Token) -> bool:
    """Whether a token shows that its neighbour is a word: it is a long word, or both have several letters."""
    is_word = token.kind in ("word", "text") and not _is_known(token.text)
    return is_word and len(token.text) + min(len(beside.text), 2) > _PLAIN_LETTERS


def is_name(text: str) -> bool:
    """Whether a word is the name of a constant or of a Greek letter."""
    return text in _SPELLED_CONSTANTS or text in _GREEK


def _is_known(text: str) -> bool:
    lower = text.lower()
    return (
        lower in _FUNCTIONS
        or text in _SPELLED_CONSTANTS
        or text in _GREEK
        or lower in _STOPPING_WORDS | _POWER_WORDS.keys() | {"per", "to", "bis"}
    )


def _letters_of(token: Token) -> list[Token]:
    for name in ("sin", "cos", "tan", "ln", "log", "exp"):  # written without a space, as in sinx
        if token.text.startswith(name) and len(token.text) == len(name) + 1:
            return [_piece(token, 0, len(name)), _piece(token, len(name), len(name) + 1)]
    if len(token.text) > _PLAIN_LETTERS or _is_known(token.text) or not token.text.isascii():
        return [token]
    return [_piece(token, place, place + 1) for place in range(len(token.text))]


def _piece(token: Token, start: int, end: int) -> Token:
    return Token("word", token.text[start:end], token.start + start, token.start + end)


def _number_in(token: Token) -> Number:
    if len(token.text) > _MAX_DIGITS:
        raise NotReadError
    digits, _, exponent = token.text.lower().partition("e")
    if abs(int(exponent or 0)) > _LARGEST_EXPONENT:
        raise NotReadError
    return Number(Fraction(digits.rstrip(".")) * Fraction(10) ** int(exponent or 0))


def _with_year_first(parts: tuple[Number, ...]) -> tuple[Number, ...]:
    """The parts of a date as year, month and day, if they tell which is which: 12/25/2020 does, 3/4/2020 does not."""
    first, second, year = parts
    if year.value <= 31 or (first.value <= 12 and second.value <= 12):
        return parts
    return (year, first, second) if first.value <= 12 else (year, second, first)


def _root_of(radicand: Node, degree: Node) -> Node:
    """A root. One of an odd degree has an operation of its own, as that of a negative number is real."""
    if isinstance(degree, Number) and degree.value.denominator == 1 and degree.value % 2 == 1:
        return Apply("root", (radicand, degree))
    return Apply("pow", (radicand, Apply("div", (Number(Fraction(1)), degree))))


def _joined(items: Sequence[Node], joined_by: Collection[str]) -> Node:
    if not _ALTERNATIVE_WORDS.isdisjoint(joined_by):
        return Apply("or", tuple(items))
    is_mixed_number = len(items) == 2 and isinstance(items[0], Number) and _is_proper_fraction(items[1])
    if is_mixed_number and not _JOINING_WORDS.isdisjoint(joined_by):  # two and 1/4
        return Apply("add", tuple(items))
    if all(_ends_in_unit(item) for item in items) and not _share_a_unit(items):
        together = items[0]
        for item in items[1:]:
            together = _together(together, item)
        return together
    return Apply("list", tuple(items))


def _share_a_unit(items: Sequence[Node]) -> bool:
    """Whether quantities are several of a kind, as `3 cm and 4 cm`, and not one that is written in several units."""
    return len({units_of(item) for item in items}) < len(items)


def _may_precede_number(node: Node) -> bool:
    """Whether a number may follow in a product without a sign, as in ``i4`` and ``2!3!``."""
    return node == Symbol("i") or (isinstance(node, Apply) and node.operation == "factorial")


def _together(one: Node, other: Node) -> Node:
    """Adjacent quantities, which are added if they have the same dimension (by the evaluation)."""
    return Apply("and", (*(one.parts if isinstance(one, Apply) and one.operation == "and" else (one,)), other))


def _difference(left: Node, right: Node) -> Node:
    """A difference, or a range such as ``50-60``, in which the smaller of two positive amounts comes first."""
    amounts = [node.value for node in (_number_of(left), _number_of(right)) if isinstance(node, Number)]
    if len(amounts) == 2 and 0 < amounts[0] < amounts[1]:
        return Apply("range", (left, right))
    return Apply("sub", (left, right))


def _number_of(node: Node) -> Node:
    """The number of a quantity."""
    if isinstance(node, Apply) and node.operation == "mul" and isinstance(node.parts[-1], Unit):
        return node.parts[0]
    return node


def _product_of(left: Node, right: Node) -> Node:
    if isinstance(right, Unit) and right.name == "":  # words without meaning, as in `5 in total`
        return left
    return Apply("mul", (left, right))


def _is_proper_fraction(node: Node) -> bool:
    """Whether it is a proper fraction of integers, which is added to an integer before it (``1\\frac{3}{4}``)."""
    if not (isinstance(node, Apply) and node.operation in ("frac", "div")):
        return False
    over, under = node.parts
    return isinstance(over, Number) and isinstance(under, Number) and 0 < over.value < under.value


def _fraction(over: Node, under: Node) -> Node:
    """A fraction, or a derivative if it is written as one, so that its d is not cancelled."""
    factors, divisors = _factors(over), _factors(under)
    for letter in ("d", "partial"):
        if _is_differential(factors[0], letter) and _is_differential(divisors[0], letter) and len(divisors) > 1:
            return Apply("derivative", (over, under))
    return Apply("frac", (over, under))


def _factors(node: Node) -> list[Node]:
    if isinstance(node, Apply) and node.operation == "mul":
        return [*_factors(node.parts[0]), *_factors(node.parts[1])]
    return [node]


def _is_differential(node: Node, letter: str) -> bool:
    base = node.parts[0] if isinstance(node, Apply) and node.operation == "pow" else node
    return base == Symbol(letter)


def _indexed(base: Node, index: str) -> Node:
    if isinstance(base, Number):
        return Apply("base", (base, _base_of(index)))
    if isinstance(base, Symbol):
        return Symbol(f"{base.name}_{index}")
    raise NotReadError


def _base_of(index: str) -> Node:
    digits = _BASES.get(index.lower(), index)
    if not digits.isdecimal() or not 2 <= int(digits[:3]) <= 36:
        raise NotReadError
    return Number(Fraction(int(digits)))


def _named(node: Node) -> str:
    if isinstance(node, Symbol | Unit):
        return node.name
    if isinstance(node, Apply) and node.operation == "mul":
        return "".join(map(_named, node.parts))
    raise NotReadError


def _is_amount(node: Node) -> bool:
    """Whether a unit may follow a node."""
    if isinstance(node, Apply) and node.operation == "mul":
        return _is_amount(node.parts[1]) or (isinstance(node.parts[1], Unit | Apply) and _is_amount(node.parts[0]))
    return isinstance(node, Number | Unit) or (isinstance(node, Apply) and node.operation in _AMOUNTS)


def _ends_in_unit(node: Node) -> bool:
    if isinstance(node, Apply):
        if node.operation == "pow":
            return _ends_in_unit(node.parts[0])
        return node.operation in ("mul", "div", "neg", "and") and _ends_in_unit(node.parts[-1])
    return isinstance(node, Unit)


def _has_known_unit(node: Node) -> bool:
    """Whether a quantity ends with a unit of measure and not with another word."""
    last = node
    while isinstance(last, Apply):
        last = last.parts[0] if last.operation == "pow" else last.parts[-1]
    return isinstance(last, Unit) and unit_named(last.name, one_letter=True) is not None


def _singular(word: str) -> str:
    lower = word.lower()
    if len(word) < 4 or not (word.islower() or word[1:].islower() or (word.isupper() and len(word) > 4)):
        return word  # a symbol, whose case matters
    if lower.endswith("ies") and len(lower) > 4:
        return lower[:-3] + "y"
    if lower.endswith(("ches", "shes", "xes", "sses")):
        return lower[:-2]
    return lower[:-1] if lower.endswith("s") and not lower.endswith("ss") and len(lower) > 3 else lower
