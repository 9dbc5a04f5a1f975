"""The same thing in another form: records and sentences, sentences compared, words put in order."""

import random

from peftbench.models.pocket.world.lexicon import COLOURS, FOODS, JOBS, NAMES, PLACES, THINGS

FIELDS = {"who": NAMES, "work": JOBS, "home": PLACES, "colour": COLOURS, "owns": THINGS, "eats": FOODS}
SENTENCES = (
    (("who", "work", "home"), "{who} is a {work} and lives by the {home}."),
    (("who", "work"), "{who} works as a {work}."),
    (("who", "home"), "{who} lives by the {home}."),
    (("who", "colour", "owns"), "{who} owns a {colour} {owns}."),
    (("who", "home", "eats"), "By the {home}, {who} eats {eats}."),
    (("who", "work", "eats"), "The {work} {who} eats {eats} every day."),
    (("who", "work", "colour", "owns"), "{who} the {work} carries a {colour} {owns}."),
    (("who", "colour", "owns", "home"), "{who} keeps a {colour} {owns} near the {home}."),
    (("who", "eats"), "{who} eats {eats}."),
    (("who", "work", "home", "eats"), "{who}, a {work} from the {home}, eats {eats}."),
)


def _record(rng: random.Random, keys: tuple[str, ...]) -> dict[str, str]:
    return {k: rng.choice(FIELDS[k]) for k in keys}


def _listing(rng: random.Random, record: dict[str, str]) -> str:
    items = list(record.items())
    if rng.random() < 0.5:
        rng.shuffle(items)
    form, joint = rng.choice((("{k}: {v}", "; "), ("{k} = {v}", ", "), ("{k}: {v}", "\n")))
    return joint.join(form.format(k=k, v=v) for k, v in items)


def describe(rng: random.Random) -> tuple[str, str]:
    """A record told in a sentence."""
    keys, sentence = rng.choice(SENTENCES)
    record = _record(rng, keys)
    asked = rng.choice(("Say this in words. {r}", "Make a sentence.\n{r}", "{r}\nTell it.", "Write it out: {r}"))
    return asked.format(r=_listing(rng, record)), sentence.format(**record)


def extract(rng: random.Random) -> tuple[str, str]:
    """A sentence turned into its record."""
    keys, sentence = rng.choice(SENTENCES)
    record = _record(rng, keys)
    listing = "; ".join(f"{k}: {v}" for k, v in record.items())
    return rng.choice(("Note this down. {s}", "{s} List the facts.")).format(s=sentence.format(**record)), listing


def compare(rng: random.Random) -> tuple[str, str]:
    """Two sentences about the same fields: which of them agree, and how many."""
    keys, sentence = rng.choice([s for s in SENTENCES if len(s[0]) >= 3])
    first = _record(rng, keys)
    changed = set(rng.sample(keys, rng.randint(0, len(keys))))
    second = {k: rng.choice([v for v in FIELDS[k] if v != first[k]]) if k in changed else first[k] for k in keys}
    other = rng.choice([s for s in SENTENCES if set(s[0]) == set(keys)])[1]
    same = [k for k in keys if k not in changed]
    if len(same) == len(keys):
        verdict = "They say the same."
    elif not same:
        verdict = "They share nothing."
    else:
        verdict = f"They share the {' and the '.join(same)}: {len(same)} of {len(keys)}."
    return f"Compare.\n{sentence.format(**first)}\n{other.format(**second)}", verdict


def reorder(rng: random.Random) -> tuple[str, str]:
    """Words of a sentence in another order, put right."""
    keys, sentence = rng.choice(SENTENCES)
    text = sentence.format(**_record(rng, keys)).rstrip(".")
    words = text.split()
    mixed = words[:]
    rng.shuffle(mixed)
    return f"Put these words in order: {' '.join(mixed)}", text + "."
