"""Finds what a text states: without markup around it and, in a longer text, the clause that gives the answer."""

import re

from sftkey_dist.evaluation.answers.mathematics.notation import boxed, last_part, without_box

_NOUNS = (
    r"(?:answer|result|solution|choice|option|value|total|conclusion|decision|verdict|label|category|class"
    r"|antwort|ergebnis|lösung|entscheidung|réponse|résultat|respuesta|resultado|solución|risposta|risultato"
    r"|resposta|antwoord|ответ|odpowiedź|svar|vastaus|cevap)"
)
_ADJECTIVES = r"(?:final|correct|right|best|only|most likely|my|our|finale|correcte|bonne|correcta|richtige|korrekte)"
_VERBS = (
    r"(?:is|was|are|be|=|equals?|seems|appears|should|would|must|to|likely|probably|clearly|therefore|thus|then|now"
    r"|ist|lautet|est|es|è|é|будет|jest|är|on)"
)
_LEAD = re.compile(
    rf"(?:^|(?<=[\s(*_\"'`.,;:!?>]))(?:the\s+|la\s+|die\s+|das\s+|le\s+|el\s+|il\s+|l['’]\s*)?(?:{_ADJECTIVES}\s+){{0,4}}{_NOUNS}"
    rf"(?:\s+(?:final|finale|correcte|correcta|corretta))?(?:\s+(?:here|to (?:this|the) (?:question|problem)))?"
    rf"(?:\W{{0,4}}(?::|=|->|→|-(?=\s))|(?:\s+{_VERBS}\b){{1,6}}\s*:?)\s*"
    r"|(?:答案|正确答案|答え|答|정답|답)\s*(?:是|为|為|は|은|는|：|:)+\s*"
    r"|(?:^|\n)\s*(?:####|A\s*:|Ans(?:wer)?\s*[.:])\s*",
    re.IGNORECASE,
)
_CONCLUDING = re.compile(
    r"(?:^|(?<=[\s.,;:]))(?:therefore|thus|hence|so|consequently|in conclusion|finally"
    r"|we (?:get|have|obtain|find|conclude)"
    r"|also|daher|donc|por lo tanto)\b[\s,:]*(?:that\b\s*)?",
    re.IGNORECASE,
)
_APPROXIMATELY = re.compile(
    r"^(?:it\s+is\s+|it['’]s\s+|that\s+is\s+)?(?:approximately|approx\.?|about|around|roughly|nearly|almost|circa|ca\.|~|≈)\s*",
    re.IGNORECASE,
)
_OPENERS = re.compile(
    r"^(?:(?:it\s+is|it['’]s|that\s+is|there\s+are|there\s+is|exactly|only|just|a\s+total\s+of|in\s+total|i\.e\.,?|=|:)\s*)+",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^```[\w-]*\n(.*?)\n?```$", re.DOTALL)
_EMPHASIS = re.compile(r"^(\*\*\*|\*\*|\*|___|__|_|`)(?=\S)(.+?)(?<=\S)\1$", re.DOTALL)
_QUOTED = re.compile(r"^[\"'“”‘’«»「」](.+)[\"'“”‘’«»「」]$", re.DOTALL)
_REFUSED = re.compile(
    r"\b(?:not|n['’]t|cannot|can['’]?t|never|nor|neither|isn['’]?t|wrong|incorrect|false|nicht|kein\w*|falsch|pas|faux"
    r"|no es|rejected?|eliminated?|ruled? out|excluded?|unlikely|refus(?:e|es|ed)"
    r"|(?:anything|everything|all|any of them) (?:but|except|other than))\b"
    r"|\bno\s+(?!doubt|question|problem|one\b|matter)"
    r"|\w+n['’]t\b|不是|不|錯|错",
    re.IGNORECASE,
)
_FIRST_PARAGRAPH = re.compile(r"(.+?)[^\S\n]*(?:\n\s*\n|\n\s*(?=[A-Z*(_#-]))", re.DOTALL)
_LINES = re.compile(r"\n{3,}")
_SPACES = re.compile(r"[ \t\u00a0]{2,}")
_LONGEST_CHARACTERS = 4000
_MAX_LAYERS = 16
"""Maximum number of layers of markup that are removed, because a model may write thousands."""


def unwrapped(text: str) -> str:
    """The text without white space, fences, emphasis, quotes, a box or a full stop around it."""
    text, before = last_part(_LINES.sub("\n\n", _SPACES.sub(" ", text)).strip(), _LONGEST_CHARACTERS), ""
    for _ in range(_MAX_LAYERS):
        if text == before:
            break
        before = text
        for pattern, group in ((_FENCE, 1), (_EMPHASIS, 2), (_QUOTED, 1)):
            match = pattern.match(text)
            if match is not None:
                text = match[group].strip()
        text = without_box(text).strip()
        if text.endswith((".", "。", "！")) and not text.endswith("..") and len(text) > 1:
            text = text[:-1].rstrip()
    return text


def stated(text: str) -> str:
    """The clause that gives the answer: the contents of boxes, otherwise what follows the last announcement.

    Without an announcement, it is the conclusion in the last line, or the whole line.
    """
    text = last_part(_LINES.sub("\n\n", text.strip()), _LONGEST_CHARACTERS)
    boxes = list(dict.fromkeys(box.strip() for box in boxed(text)))
    if boxes:
        return ", ".join(boxes)
    leads = [match for match in _LEAD.finditer(text) if text[match.end() :].strip(" \n\t.*_`")]
    if leads:
        return _opened(text[leads[-1].end() :])
    lines = [line for line in text.splitlines() if line.strip(" *_`")]
    last = lines[-1] if lines else text
    conclusions = [match for match in _CONCLUDING.finditer(last) if last[match.end() :].strip()]
    return _opened(last[conclusions[-1].end() :] if conclusions else last)


def without_lead(text: str) -> str:
    """The text without an announcement at its beginning."""
    match = _LEAD.match(text)
    return _opened(text[match.end() :]) if match else _opened(text)


def is_approximate(text: str) -> bool:
    """Whether a text begins with words that call it inexact."""
    return _APPROXIMATELY.match(text) is not None


def announces(text: str) -> bool:
    """Whether a clause says that it gives the answer."""
    return _LEAD.search(text) is not None


def first_paragraph(text: str) -> str:
    """What stands before the first blank line, or the first line if the next one begins a sentence.

    A model often writes its answer there and explains it below. It is empty if there is no more, or if what follows
    announces an answer.
    """
    match = _FIRST_PARAGRAPH.match(text.strip())
    return "" if match is None or announces(text[match.end() :]) else match[1]


def last_announcement(text: str) -> int:
    """Where the last words that announce an answer end; 0 if there are none."""
    return max((match.end() for match in _LEAD.finditer(text)), default=0)


def refuses(text: str) -> bool:
    """Whether a clause rejects what it names."""
    return _REFUSED.search(text) is not None


def _opened(text: str) -> str:
    """The text without opening words such as `it is about`."""
    text = text.strip()
    if text.count("**") % 2:  # the emphasis began or ends in the announcement
        text = text.removeprefix("**").strip() if text.startswith("**") else text.removesuffix("**").strip()
    return _APPROXIMATELY.sub("", _OPENERS.sub("", text)) or text
