"""Patterns for phrases, in several languages, that state an answer, doubt it, explain it or end a response.

Every pattern is applied to one line or sentence, never to a whole response.
"""

# ruff: noqa: RUF001

import re

_NOUNS = (
    # English
    r"(?:(?:the|my|our)\s+)?(?:(?:final|correct|right|best|closest|short)\s+){0,3}(?:answers?|choice|option|ans\b)"
    r"(?:\s+(?:choice|option))?(?:\s+to\s+(?:the|this|your)\s+(?:question|problem|exercise))?",
    r"(?:the\s+)?final\s+(?:result|solution)",
    # German, Dutch
    r"(?:(?:die|meine|unsere|het)\s+)?(?:(?:richtige|korrekte|endgültige|finale|juiste)\s+){0,2}(?:antwort|antwoord)",
    r"(?:das\s+)?endergebnis",
    # French
    r"(?:(?:la|ma|notre)\s+)?(?:bonne\s+)?réponse(?:\s+(?:finale|correcte|exacte))?",
    # Spanish, Portuguese, Italian
    r"(?:(?:la|mi|nuestra|a|minha|mia)\s+)?(?:respuesta|resposta|risposta)"
    r"(?:\s+(?:final|correcta|correta|corretta|finale|certa))?",
    # Russian, Polish
    r"(?:(?:правильный|окончательный|верный)\s+)?ответ|(?:prawidłowa\s+)?odpowiedź",
    # Chinese, Japanese, Korean
    r"(?:最终|正确|最終)?(?:的)?(?:答案|选项)|答え|正解|(?:最終)?回答|정답|답",
)
_NOUN = rf"(?:{'|'.join(_NOUNS)})"
_MARKS = r"[\s*_`]*+"
_IS = (
    r"(?:would\s+be|might\s+be|could\s+be|may\s+be|must\s+be|should\s+be|will\s+be|is|are|was|ist|lautet|sind|est|sont|es|son|é|è|sono|"
    r"это|就是|应该是|应为|应选|是|为|選|选|は|が|은|는)(?:(?<=[^a-zéè])|(?![\w]))"
)
_ROUGHLY = (
    r"(?:(?:therefore|thus|hence|indeed|clearly|definitely|certainly|obviously|actually|simply|just|somit|donc|entonces|approximately|roughly|about|ungefähr|etwa|environ|"
    r"aproximadamente|circa|约|大约)\s*)?"
)
_COLON = r"[:：→】]|=(?!=)|->|-(?=\s)"
_COPULA = rf"(?:{_IS}{_MARKS}(?:{_COLON})?|{_COLON}|\.(?=\s*[:：])\s*[:：]|\*{{1,2}}(?=\s))"
_START = r"(?<![A-Za-zÀ-ɏЀ-ӿ])"

_INVERTED = r"(?:ist|lautet)\s+(?:die|meine|unsere)\s+(?:(?:richtige|korrekte|endgültige)\s+){0,2}antwort\s*+:?"

LEAD = re.compile(rf"{_START}(?:{_NOUN}\]?{_MARKS}{_COPULA}|{_INVERTED}){_MARKS}{_ROUGHLY}", re.IGNORECASE)
"""Phrases before an answer: "The answer is", "**Réponse :**", "答案是"."""

LETTER_LEAD = re.compile(r"A\s*[:：]\s*")
"""``A:`` at the start of a line, as in a list of questions and answers."""

_BEFORE_A_LEAD = (
    r"(?:(?:so|thus|hence|therefore|consequently|and|then|finally|in\s+conclusion|also|daher|somit|folglich|donc|ainsi|"
    r"por\s+lo\s+tanto|por\s+tanto|así\s+que|portanto|logo|quindi|dunque|поэтому|итак|所以|因此|故|综上所述|したがって|"
    r"따라서)[\s,:，：]*+)"
)
LEAD_ALONE = re.compile(rf"<answer>|[\W_]*+{_BEFORE_A_LEAD}?{_NOUN}{_MARKS}(?:{_COPULA})?[\s*_`:：]*", re.IGNORECASE)
"""A line that only says that the answer follows: a heading, "The answer is:", ``<answer>``."""
MODIFIED = re.compile(r"(?:\A|.*[^\w'’])[A-Za-zÀ-ɏ'’]+\s+\Z", re.DOTALL)
"""Before a noun without an article: a word that says whose answer or what kind of answer it is."""
WITH_ARTICLE = re.compile(
    r"(?:the|my|our|die|meine|unsere|het|das|la|ma|notre|mi|nuestra|a|minha|mia|ist|lautet)\b", re.IGNORECASE
)
CONNECTOR = re.compile(rf"{_START}{_BEFORE_A_LEAD}(?![^\W\d_])", re.IGNORECASE)
"""A word such as "therefore" between the reasoning and the answer."""
ENDS_CONNECTED = re.compile(rf"{_START}{_BEFORE_A_LEAD}\Z", re.IGNORECASE)
CONNECTION = re.compile(rf"(?:{_BEFORE_A_LEAD}|(?:{LEAD.pattern})|[\W_])*+", re.IGNORECASE)
"""Text without content that may precede a lead in its sentence."""

UNCERTAIN_LEAD = re.compile(
    r"\b(?:if|unless|whether|suppose|assum\w+|maybe|perhaps|probably|possibly|might|could|may|not\s+(?:sure|certain)|"
    r"doubt\w*|guess\w*|wenn|ob|falls|angenommen|vielleicht|peut-être|quizás?|tal\s+vez|talvez|forse|если|возможно)\b|"
    r"如果|假设|也许|可能",
    re.IGNORECASE,
)
"""In the sentence before a lead: the sentence does not state an answer."""
UNCERTAIN_CLAUSE = re.compile(
    r"n['’]t\b|\b(?:not|first|initial\w*|says?|said|claims?|thinks|check\w*|verif\w*|student\w*|previous|earlier|your|his|"
    r"her|their|wrong|incorrect|nicht|si|pas|no|non|se)\b|不",
    re.IGNORECASE,
)
"""In the clause before a lead or in the lead: it may not be the final answer."""

OPTION = re.compile(
    r"[*_\s]*(?:(?:(?:the\s+)?(?:correct\s+|right\s+)?(?P<word>option|choice|answer|ans)|选项?)\b[\s*_]*(?:is|:|=|-|：)?[\s*_]*)?"
    r"[(\[]?(?P<answer>[A-Ja-j])[)\]]?[\s*_.。]*",
    re.IGNORECASE,
)
"""A line that is an option, "B" or "(B)", or a sentence with the word for it, "Option B"."""
STARTS_WITH_AN_OPTION = re.compile(r"\(?[A-J](?!\w)")
CHOSEN_OPTION = re.compile(
    rf"[\s*_]*{_BEFORE_A_LEAD}?(?:the\s+)?(?:option\s+|choice\s+)?(?P<answer>\([A-J]\)|[A-J])\s+(?:is|must\s+be)\s+(?:the\s+)?"
    r"(?:(?:correct|right|best)(?:\s+(?:answer|option|choice))?|(?:answer|option|choice))[\s*_.]*"
    rf"|[\s*_]*{_BEFORE_A_LEAD}(?:choose\s+|we\s+choose\s+|选择?\s*)?(?:option|choice|选项?)?\s*(?P<other>\([A-J]\)|[A-J])[\s*_.。]*",
    re.IGNORECASE,
)
"""A sentence that chooses one: "Hence B is the correct answer", "故选B。"."""

_NOT = r"not|never|neither|nicht|nie|niemals|weder|kein\w*|keinesfalls|pas|jamais|no|nunca|ne|non|не"
NEGATED = re.compile(
    rf"(?:{_NOT})\s+\S|(?:\w+\s+){{1,2}}not\s|(?:不是|并非|不)\S|n['’]t\b|.*(?:では?(?:ありません|ない|なく)|아닙니다)",
    re.IGNORECASE,
)
NEGATED_BEFORE = re.compile(rf"(?:\b(?:{_NOT}|cannot)|n['’]t|不是|并非)\W*(?:be|equal|to|\s)*\W*\Z", re.IGNORECASE)
"""Negation directly before an answer that is quoted in a sentence."""
HEDGED = re.compile(
    r"\b(?:likely|unlikely|maybe|perhaps|probably|possibly|might|could\s+be|not\s+sure|unsure|i\s+guess|vielleicht|wahrscheinlich|"
    r"vermutlich|peut-être|probablement|quizás?|tal\s+vez|probablemente|talvez|forse|возможно|наверное)\b|"
    r"可能|也许|大概|たぶん",
    re.IGNORECASE,
)
ALTERNATIVES = re.compile(r"\s(?:or|oder|ou|или)\s|\beither\b|\bentweder\b|\s[ou]\s(?=\S)|或者?|または", re.IGNORECASE)
ADDED = re.compile(
    r"\A[,;:]|\s[–—-]\s+[^\W\d_]{2,}\S*\s+\S|\b(?:nothing|no|none)\s+(?:else|other)\b|[，；]\s*[^\s\dA-Z(（]{2,}"
)
"""Punctuation that shows that the text is more than an answer."""
EXPLAINED = re.compile(
    r"\b(?:because|since|as\s+(?:it|they|we|the|this|all|there)|which|therefore|thus|hence|so\s+that|so|due\s+to|"
    r"given\s+that|where|i\.e\.|weil|denn|da|sodass|car|parce\s+qu\w*|puisque|porque|ya\s+que|pues|pois|perché|poiché|"
    r"потому|так\s+как)\b|因为|因此|所以|由于|なぜなら|ので|から",
    re.IGNORECASE,
)
AFTER_A_VALUE = re.compile(
    r"\b(?:for|as|when|if|instead|not|but|unless|assuming|while|after|before|with|then|rather|wenn|falls|wie|nicht|statt|"
    r"mais|quand|pas|pour|pero|cuando|para|sino)\b",
    re.IGNORECASE,
)
"""After a number or an option: the text is more than the answer."""
SENTENCE = re.compile(
    r"(?:let\s+us|let['’]s|i|we|she|he|it|they|you|there|this|that|es|sie|er|wir|il|elle|ils|elles|nous|ella|ellos|nosotros)\s+\S+\s+\S|"
    r".*\s(?:is|are|was|were|has|have|had|ist|sind|hat|haben|est|sont|ont|tiene|tienen|hay)\s|"
    r"[我他她它你]们?.|(?:一共|总共|共)有",
    re.IGNORECASE,
)
POINTS_ELSEWHERE = re.compile(
    r"(?:as\s+|given\s+|shown\s+|found\s+|stated\s+|obtained\s+|in\s+the\s+)?(?:above|below|follow\w*|the\s+following|here|"
    r"there|shown\s.*|given\s.*|found\s.*|obtained\s.*|as\s+(?:follows|shown|given|stated|above).*|in\s+the\s.*|now|this|"
    r"that|see\s.*|siehe\s.*|voir\s.*|ver\s.*|simple|clear\w*|obvious\w*|easy|straightforward|correct|right|wrong|incorrect|unknown|unclear|oben|unten|klar|"
    r"ci-dessus|claire?|clara|如[上下].*|上述.*|很?明显.*)",
    re.IGNORECASE,
)
"""Phrases that only look like an answer: "The answer is as shown above", "The answer is clear"."""
PLACEHOLDER = re.compile(
    r"(?:(?:insert|your|the|final|correct)\s+)*answer(?:\s+here)?|[<\[{(][^<>\[\]{}()\d]*\b(?:answer|insert|your)\b[^<>\d]*[>\]})]",
    re.IGNORECASE,
)
"""A placeholder for the answer that was not filled in."""
HEADING = re.compile(
    r"(?:(?:step|part|case|question|problem|exercise|example|schritt|teil|étape|partie|paso|parte|passo|шаг|第)\s*"
    r"(?:(?:\d+|[a-z]|[ivx]+|[一二三四五六七八九十]+)(?:\s*[:：.–—-].*)?|(?=\W*\Z))|(?:the\s+)?(?:conclusions?|summary|solution|explanation|reasoning|"
    r"analysis|discussion|notes?|results?|final\s+(?:answer|result|thoughts|step)|answers?|verification|check|overview|"
    r"introduction|calculations?|background|fazit|lösung|zusammenfassung|antwort|résumé|réponse|resumen|conclusión|"
    r"respuesta|结论|总结|解答?|答案|步骤.*))\W*|.*[:：]",
    re.IGNORECASE,
)
RUNS_ON = re.compile(
    r"^[#*>\s]{0,8}(?:q|question|problem|exercise|user|human|instruction|input|frage|pregunta|问题)\b[^\n\w:：]{0,4}\d{0,4}"
    r"[^\n\w:：]{0,4}[:：]",
    re.IGNORECASE | re.MULTILINE,
)
"""The start of another question, which the model asks and answers itself."""

SIGN_OFF = re.compile(
    r"(?:"
    r"(?:i|we)?\s*(?:really\s+|do\s+)?hope\b|(?:please\s+|just\s+|and\s+)?(?:let\s+me\s+know|feel\s+free|don['’]t\s+hesitate)"
    r"|if\s+you\s+(?:have|need|want|would\s+like|['’]d\s+like)\b|is\s+there\s+any|do\s+you\s+(?:have|need|want)\b"
    r"|would\s+you\s+like\b|(?:good\s+luck|happy\s+\w+|cheers|thanks?|thank\s+you|best\s+(?:regards|wishes)|enjoy|"
    r"you['’]re\s+welcome|have\s+a\s+\w+\s+(?:day|time)|great\s+(?:question|job)|all\s+done|done|that['’]s\s+(?:it|all)|"
    r"q\.?\s?e\.?\s?d|the\s+end)\b"
    r"|ich\s+hoffe|hoffentlich|viel\s+(?:erfolg|glück|spaß)|melde?\s+dich|bei\s+(?:weiteren\s+)?fragen|lass\s+(?:es\s+)?mich"
    r"|wenn\s+(?:du|sie)\s+(?:noch\s+|weitere\s+)*fragen"
    r"|j['’]espère|n['’]hésite|bonne\s+(?:chance|journée|continuation)|si\s+(?:vous\s+avez|tu\s+as)\s.*questions?"
    r"|espero|no\s+dud[ea]s|avísame|buena\s+suerte|si\s+tienes?\s.*(?:pregunta|duda)s?|se\s+tiver|boa\s+sorte"
    r"|spero\s+(?:che|di)|fammi\s+sapere|buona\s+fortuna|надеюсь|если\s.*вопрос|удачи"
    r"|希望|如(?:果|有|需).*(?:问题|疑问|帮助)|祝[你您]|还有.*吗|请告诉我|お役に立て|ご質問|他に.*か"
    r").*",
    re.IGNORECASE | re.DOTALL,
)
TAKES_BACK = re.compile(
    r"\d|;|\b(?:but|however|although|if\s+so|otherwise|forg[eo]t\w*|mistakes?|not\s+(?:sure|certain)|wrong|aber|mais|pero|ma|но)\b|但|不确定",
    re.IGNORECASE,
)
"""In a sign-off: it contains more than a farewell."""
POLITE_END = re.compile(r"(?:です|でした|になります|だ|である|입니다|이다)\Z")
"""Endings of Japanese and Korean sentences that follow the answer."""
