"""The same thing in another form: records and sentences, sentences compared, words put in order."""

import random

from pretraining.world.lexicon import BAD, COLOURS, FOODS, GOOD, JOBS, KINDS, PLACES, THINGS, invented, names

FIELDS = {"work": JOBS, "home": PLACES, "colour": COLOURS, "owns": THINGS, "eats": FOODS}
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
    """Values of the fields; one in six is a word that nobody knows and that has to be copied."""
    values = {k: rng.choice(FIELDS[k]) if rng.random() < 5 / 6 else invented(rng).lower() for k in keys if k != "who"}
    return {k: names(rng, 1)[0] if k == "who" else values[k] for k in keys}


def _listing(rng: random.Random, record: dict[str, str]) -> str:
    items = list(record.items())
    if rng.random() < 0.5:
        rng.shuffle(items)
    form = rng.choice(("{k}: {v}", "{k} = {v}", "({k}) {v}", "{k}[{v}]", '{k}="{v}"'))
    joint = rng.choice(("; ", ", ", "\n", " | "))
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
    second = {k: v if k in changed else first[k] for k, v in _record(rng, keys).items()}
    changed = {k for k in keys if first[k] != second[k]}
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


ALL_WORDS = [word for values in (*FIELDS.values(), KINDS["animal"], KINDS["tree"], GOOD, BAD) for word in values]


def echo(rng: random.Random) -> tuple[str, str]:
    """Words in no order, said again: the plainest case of finding a word in the text and what followed it."""
    words = [rng.choice(ALL_WORDS) if rng.random() < 0.7 else invented(rng).lower() for _ in range(rng.randint(3, 16))]
    told = rng.choice((" ", ", ", "\n")).join(words)
    i = rng.randrange(len(words) - 1)
    return rng.choice(
        (
            (f"Say again: {told}", told),
            (f"{told} And once more?", told),
            ("", f"{told}. {told}. {told}."),
            (f"{told} What comes after {words[i]}?", words[words.index(words[i]) + 1]),
            (f"{told} Go on from {words[i]}.", " ".join(words[words.index(words[i]) :])),
        )
    )
