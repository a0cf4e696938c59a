"""Words of many languages that telling answers apart goes by."""

from __future__ import annotations

import re


def words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Languages that write 1,5 for one and a half.
DECIMAL_COMMA = words_of("de fr es it pt nl pl cs ro tr vi id sv da no fi hu hr sk sl ca ru uk bg sr el")
YES = words_of(
    "yes ja oui sí si sim да так tak evet نعم 是 はい 예 네 hai ano igen da kyllä correct true richtig vrai cierto"
)
NO = words_of(
    "no nein non não nee нет ні nie hayır لا 不 不是 否 いいえ 아니요 nej ne nem nu ei false falsch faux falso"
)
# What a short answer may say beside the question's own words and the answer.
FILLER = words_of(
    "written by author called named the a an is are was were it its it's that this of by in on to you he she they "
    "we i get gets got der die das ein eine einen ist sind heisst war hat es er sie le la les l un une est sont c "
    "ce il elle on el los las lo una es son fue ha il lo gli i e un uno una o os as um uma foi answer antwort "
    "respuesta reponse 是 の は です"
)

# Behind these comes what is meant.
MARKERS = re.compile(
    r"####|\\boxed|(?:final |correct |right )?answer(?: is|:)|the result is|(?:die |"
    r"richtige )?antwort(?: lautet| ist|:)|"
    r"(?:la )?r[eé]ponse(?: est|:)|(?:la )?respuesta(?: correcta)?(?: es|:)|(?:la )?risposta(?: [eè]|:)|"
    r"(?:a )?resposta(?: [eé]|:)|ответ(?::| —| -)?|الجواب|答案(?:是|：|:)|答えは|選|选|"
    r"\b(?:therefore|so|thus|hence|donc|quindi|portanto|por lo tanto|por tanto|also|somit|поэтому)\b|"
    r"= ?(?=[-−$€£]?\s?\d)|＝|≈ ?",
    re.I,
)
# Before the letter of the choice.
CHOOSING = (
    "answer|antwort|respuesta|réponse|risposta|resposta|option|opci[oó]n|opzione|opç[aã]o|вариант|选项|ответ|"
    "correct|richtig|"
    "correcta|lautet|choice|答案|选|選"
)
