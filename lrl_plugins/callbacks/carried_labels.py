"""Labels that travel in a checkpoint: a resumed run learns from what the first one had, and from nothing later."""

from typing import Any

from lrl_core.preferences.store import PreferenceStore
from lrl_core.preferences.writes import add_judgment, add_question


def packed(store: PreferenceStore) -> dict[str, Any]:
    """Everything in a store, in plain lists: questions by their number, judgments in order.

    Args:
        store: What is packed.
    """
    questions = [
        {"id": q.id, "prompt": q.prompt, "texts": list(q.candidates), "picture": q.picture, "step": q.step}
        for q in store.questions()
    ]
    judgments = [
        {
            "question": j.question,
            "ranks": None if j.ranks is None else list(j.ranks),
            "who": j.who,
            "seconds": j.seconds,
            "when": j.when,
            "key": j.key,
            "withdrawn": j.withdrawn,
        }
        for j in store.judgments()
    ]
    return {"questions": questions, "judgments": judgments}


def unpack(labels: dict[str, Any], store: PreferenceStore) -> bool:
    """Fill an empty store; whether it was empty. One that holds questions is left as it is.

    Args:
        labels: What `packed` gave.
        store: What is filled.
    """
    if store.questions(limit=1):
        return False
    withdrawn = []
    with store.transaction() as connection:
        numbers = {
            q["id"]: add_question(connection, q["prompt"], q["texts"], picture=q["picture"], step=q["step"])
            for q in labels["questions"]
        }
        for j in labels["judgments"]:
            said = {name: j[name] for name in ("who", "seconds", "when", "key")}
            number = add_judgment(connection, numbers[j["question"]], j["ranks"], **said)
            withdrawn += [(number, j["who"])] if j["withdrawn"] else []
    for number, who in withdrawn:
        store.withdraw(number, who)
    return True
