"""Is an answer none, but says that the model will not speak? Also within good JSON, in the languages models do it in.

In: a description or a reason. Out: yes or no. Promise: pure; that a thing is not to be seen ("cannot tell", "no face
visible") is an answer, and so is writing in a picture that says sorry.
"""

from __future__ import annotations

import re

_MOST_READ = 500

_UNABLE = r"(?:can ?['’]?n?t|can ?not|unable|won['’]?t|will not|not (?:able|allowed|going)|must decline)"
_DEED = (
    r"(?:assist|help|provid|identif|comply|discuss|fulfil|engage with|support|process|answer|describ|generat|respond"
    r"|analy[sz]e|recogni[sz]e (?:people|person|faces|individuals|who))"
)
_REFUSALS = (
    # I'm sorry, but I can't help with that
    r"(?:(?:i ?['’]?m|i am|i|we ?['’]?re|we are|we|my) )?(?:(?:very|so|terribly) )?"
    rf"(?:sorry|apologi[sz]e|apologies)\b.{{0,60}}?\b{_UNABLE}\b.{{0,20}}{_DEED}",
    rf"{_UNABLE} (?:to )?(?:assist|comply|help) with|i (?:do not|don['’]?t) feel comfortable",
    # I cannot assist with identifying people; I'm unable to provide that
    rf"(?:i|we)(?:['’]m| am)? ?{_UNABLE} (?:to )?(?:\w+ ){{0,2}}?{_DEED}",
    r"(?:i|we) (?:must|have to|need to) (?:decline|refuse)|as an ai\b",
    r"(?:this|the|your) (?:request|image|picture|content)\b.{0,30}\b(?:violates|goes against|is against)\b",
    r"(?:content|request|response) (?:was |has been )?(?:blocked|filtered|rejected)\b",
    r"(?:(?:es )?tut mir leid|entschuldigung)\b.{0,60}\b(?:kann|darf)\b.{0,60}\bnicht\b",
    r"ich (?:kann|darf)\b.{0,60}\bnicht (?:\w+ )?(?:helfen|weiterhelfen|beschreiben|identifizieren|beantworten)",
    r"(?:je suis )?désolée?\b.{0,60}\bne (?:peux|puis)\b",
    r"je ne (?:peux|puis) pas (?:vous )?(?:aider|identifier|décrire|fournir|répondre)",
    r"lo siento\b.{0,60}\bno puedo\b|no puedo (?:ayudar|identificar|proporcionar|describir)",
    r"(?:抱歉|对不起|對不起|很抱歉|我).{0,20}(?:无法|無法|不能).{0,20}(?:协助|協助|提供|帮助|幫助|识别|識別|描述|回答|满足)",
    r"申し訳.{0,40}(?:できません|いたしかねます|ません)",
)
_REFUSAL = re.compile(rf"\W{{0,9}}(?:{'|'.join(_REFUSALS)})", re.IGNORECASE)


def refuses(words: str) -> bool:
    """Whether these words, meant to be a description or a reason, are a refusal instead."""
    return bool(_REFUSAL.match(" ".join(words[:_MOST_READ].split())))
