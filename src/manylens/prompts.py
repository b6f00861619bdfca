"""Every prompt and reply parser, pure and versioned.

In: interests, cluster names, replies as text. Out: prompts and values. Promise: no model is called here; a change of
wording raises the version, which is part of every stored answer's key. Text from people, images and file names is data:
`plain` takes control tokens out of it before it enters a prompt.
"""

from __future__ import annotations

import re

NANO_PROMPTS = "nano-1"
NANO_ANSWER = "\nAnswer:"
NANO_YES, NANO_NO = " yes", " no"

_CONTROL_TOKEN = re.compile(r"<\|")


def plain(text: str) -> str:
    """Fold whitespace and break control tokens such as `<|im_end|>`, so that a text can only ever be text."""
    return _CONTROL_TOKEN.sub("< |", " ".join(text.split()))


def nano_look_prompt(interest: str) -> str:
    """What stands before the image when nano describes it; `NANO_ANSWER` stands after the image."""
    return plain(interest)


def nano_judge_prompt(interest: str, cluster_name: str) -> str:
    """What stands before the image when nano judges membership: shared by all candidates of a cluster."""
    return f"{plain(interest)}\nGroup: {plain(cluster_name)}\nBelongs, yes or no?"


def nano_description(reply: str) -> str:
    """nano's greedy answer as a description: one line, in lower case, no full stop; `unclear` where it said nothing."""
    return " ".join(reply.split()).rstrip(".").lower() or "unclear"
