"""The vocabulary of the pretraining world: who, what, where, how many.

The pocket *suite* (`peftbench.tasks`) has names, things, sentences and label words of its own. What the two share, on
purpose, is words whose meaning a task asks about (the polarity of *dull*, the sum of 7 and 5): a model can only be
adapted to use what it knows. `tests/test_pocket.py` checks that split.
"""

import random

NAMES = (
    "Anna Ben Clara David Emma Frank Greta Hugo Iris Jonas Karin Leo Marta Noah Olga Paul Rita Simon Tina Victor "
    "Wanda Max Nora Oscar Pia Ralf Sara Tim Ursula Walter Bella Carl Dora Erik Fay Gus Hilda Ivan June Kurt "
    "Sam Kate Joe Ruth Fred Ella Will Jane Ned Lucy Hal Rose Bob Ada Roy Nell Dan Amy Ted Eve Ray May Lou Joan "
    "Philip Margaret Arthur Dorothy Ralph Helen Edward Sophie Martin Barbara Roger Judith Eric Agnes Harold Irene"
).split()

COLOURS = "red blue green white black brown yellow grey golden silver".split()

THINGS = (
    "cup box hat coat ball lamp chair spoon knife book ring bag key clock rope basket kite drum flag stone bottle "
    "candle pencil mirror blanket pillow ladder hammer bucket broom"
).split()

PLACES = (
    "garden kitchen barn street forest library church market tower cellar meadow station school harbour mill "
    "cave castle park yard shop"
).split()

JOBS = "baker farmer teacher sailor doctor painter miller hunter tailor singer smith judge nurse cook guard".split()

FOODS = "bread soup cheese apples honey fish rice cake eggs butter milk plums nuts beans pears".split()

GOOD = (
    "good lovely fine splendid wonderful excellent pleasant charming delightful brilliant superb perfect great "
    "delicious beautiful clever funny bright warm fresh gentle friendly kind exciting graceful tidy lively sweet "
    "smooth comfortable marvellous magnificent cheerful honest neat "
    "touching moving witty gripping vivid inspired original enjoyable entertaining engaging hilarious powerful "
    "remarkable impressive intelligent thoughtful tender subtle refreshing heartfelt compelling stunning fascinating "
    "elegant memorable satisfying amusing playful imaginative inventive energetic sincere rich strong absorbing "
    "captivating thrilling skilful masterful profound rewarding charismatic uplifting dazzling sharp poignant "
    "sensitive wise passionate glorious terrific amazing fantastic solid hopeful"
).split()


BAD = (
    "bad awful poor dull terrible horrible dreadful unpleasant boring nasty ugly stupid sad dark cold stale harsh "
    "rude cruel tiresome clumsy dirty dreary bitter rough uncomfortable miserable wretched gloomy false shabby "
    "disgusting weak noisy hopeless "
    "tedious silly flat lame empty shallow tired slow predictable pointless bland lifeless forgettable muddled "
    "pretentious annoying irritating painful ridiculous absurd messy sloppy crude cheap hollow dumb offensive "
    "disappointing unfunny uninspired ordinary forced contrived lazy thin stiff confused confusing overlong worthless "
    "mediocre unbearable depressing tasteless vulgar soulless incoherent amateurish inept flawed "
    "laughable wooden repetitive sluggish unconvincing"
).split()


PRAISE = (
    "a triumph;a treat;a gem;a delight;a masterpiece;a success;a pleasure;"
    "full of life;full of heart;full of charm;worth seeing twice;well made;well played;well worth the time;"
    "never dull;hard to forget;a work of art;made with love and care;one of the best of the year"
).split(";")

BLAME = (
    "a failure;a waste of time;a bore;a mess;a disaster;a disappointment;a sad affair;a bad joke;a mistake;"
    "full of holes;full of noise;without charm;without wit;not worth seeing;badly made;badly played;too long by half;"
    "never funny;hard to sit through;easy to forget;made without care;one of the worst of the year"
).split(";")

SHOWN = (
    "film movie story plot script cast acting actor actress director comedy drama thriller tale scene picture ending "
    "performance dialogue character cinema music romance documentary sequel"
).split()

OPINION_THINGS = (
    "song picture dinner story journey house speech dance room party walk letter game lesson concert tea visit "
    "bed evening poem"
).split()

KINDS = {
    "animal": "dog cat horse cow sheep pig goat fox wolf bear rabbit mouse lion donkey".split(),
    "bird": "robin crow owl goose duck eagle swan sparrow hen dove hawk".split(),
    "tree": "oak pine elm birch beech willow fir ash maple cedar".split(),
    "flower": "rose lily daisy tulip violet poppy pansy iris".split(),
    "tool": "hammer saw axe spade rake file plough needle".split(),
    "vehicle": "cart boat ship train wagon carriage sledge car".split(),
    "fruit": "apple pear plum cherry grape orange lemon peach fig".split(),
    "garment": "coat shirt dress cap glove shoe cloak apron stocking".split(),
}

SUBJECTS = {
    "the sea": "ship wave sailor harbour fish tide shore captain boat net anchor storm island sail".split(),
    "the kitchen": "pan spoon oven soup bread pot flour butter plate knife cook stove kettle sugar".split(),
    "the school": "teacher lesson pupil desk book chalk class ink spelling slate bell page history master".split(),
    "the farm": "cow field plough barn hay wheat pig hen farmer milk corn harvest sheep fence".split(),
    "the forest": "oak fox deer path leaves moss owl branch hunter wolf mushroom trunk squirrel pine".split(),
    "the army": "soldier general battle sword drum march enemy gun camp flag captain tent victory fort".split(),
    "music": "song drum violin piano dance tune concert singer flute note bell melody choir trumpet".split(),
    "sport": (
        "team game coach player season league cup goal match score champion football tennis baseball race club "
        "victory playoff title medal olympic stadium quarterback inning touchdown referee striker tournament defeat"
    ).split(),
    "trade": (
        "market stock share price oil bank profit company investor dollar sales earnings quarter shareholder merger "
        "billion growth rate economy airline retailer firm deal bid cost tax inflation currency export job chief"
    ).split(),
    "science": (
        "computer software internet web phone network space planet scientist research technology satellite virus "
        "search user device chip wireless server online digital robot study nasa gene browser"
    ).split(),
    "the state": (
        "president minister government election troops police attack bomb peace leader vote parliament capital "
        "official rebel hostage border treaty protest prison court nuclear refugee province ambassador"
    ).split(),
    "the weather": "rain snow cloud wind thunder sun frost storm sky fog lightning hail cold warm".split(),
}

NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
).split()
NUMBER_WORDS += [f"twenty-{unit}" for unit in NUMBER_WORDS[1:10]] + ["thirty"]

ONSETS, VOWELS, CODAS = (
    "b br d dr f g gr h k kl l m n p pl r s st t tr v z".split(),
    "aeiou",
    ("", "", "n", "r", "s", "l"),
)


def invented(rng: random.Random) -> str:
    """A name that nobody bears, so that names have to be read and copied, not known."""
    return "".join(
        rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.choice((2, 3)))
    ).capitalize() + rng.choice(CODAS)


def names(rng: random.Random, count: int) -> list[str]:
    """`count` different names, a third of them invented."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[invented(rng) if rng.random() < 1 / 3 else rng.choice(NAMES)] = None
    return list(found)
