"""The closed vocabulary of the pretraining world: who, what, where, how many.

The pocket *suite* (`peftbench.tasks`) has names, things, sentences and label words of its own. What the two share, on
purpose, is words whose meaning a task asks about (the polarity of *dull*, the sum of 7 and 5): a model can only be
adapted to use what it knows. `tests/test_pocket.py` checks that split.
"""

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
    "smooth comfortable marvellous magnificent cheerful honest neat"
).split()

BAD = (
    "bad awful poor dull terrible horrible dreadful unpleasant boring nasty ugly stupid sad dark cold stale harsh "
    "rude cruel tiresome clumsy dirty dreary bitter rough uncomfortable miserable wretched gloomy false shabby "
    "disgusting weak noisy hopeless"
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
    "the weather": "rain snow cloud wind thunder sun frost storm sky fog lightning hail cold warm".split(),
}

NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
).split()
NUMBER_WORDS += [f"twenty-{unit}" for unit in NUMBER_WORDS[1:10]] + ["thirty"]
