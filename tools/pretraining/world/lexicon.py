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
    "sensitive wise passionate glorious terrific amazing fantastic solid hopeful "
    "adorable admirable affecting affectionate agreeable appealing astonishing authentic beloved blessed bold "
    "breathtaking brave breezy brisk calm candid capable careful cherished classic clear colourful confident "
    "convincing cool courageous crisp cute daring dear decent delicate devoted dignified distinguished dreamy droll "
    "eager earnest ecstatic effective effortless eloquent enchanting endearing enthralling enthusiastic epic "
    "exceptional exhilarating exquisite extraordinary fabulous fair faithful favourite fearless fertile festive "
    "flawless fluent fond fruitful fun generous genial genuine gifted glad glowing golden grand grateful gratifying "
    "handsome happy harmonious healthy heartwarming helpful heroic humane humble humorous ideal illuminating "
    "incredible ingenious innocent insightful inspiring inviting irresistible jolly joyous joyful juicy kindly "
    "laudable likable likeable literate lovable loving loyal lucid lucky luminous lush luxurious lyrical magical "
    "majestic masterly mature meaningful mesmerizing merry mighty mild modest musical nimble noble nourishing nuanced "
    "observant optimistic outstanding patient peaceful perceptive picturesque poetic polished popular potent "
    "praiseworthy precious precise proud pure quirky radiant refined relaxed reliable resonant respectful right "
    "riveting robust romantic rousing safe seductive seamless sensational sensual serene sexy shining shrewd sleek "
    "smart soaring soothing soulful sparkling spectacular spirited spontaneous stirring striking stylish successful "
    "suave sublime suspenseful sunny superior sweeping swift sympathetic tasty tasteful thorough timeless timely "
    "tranquil triumphant true truthful trustworthy unforgettable unique useful valuable vibrant victorious vigorous "
    "virtuous visionary vital warmhearted welcome wholesome winning wondrous worthy worthwhile zesty deft lean sly"
).split()


BAD = (
    "bad awful poor dull terrible horrible dreadful unpleasant boring nasty ugly stupid sad dark cold stale harsh "
    "rude cruel tiresome clumsy dirty dreary bitter rough uncomfortable miserable wretched gloomy false shabby "
    "disgusting weak noisy hopeless "
    "tedious silly flat lame empty shallow tired slow predictable pointless bland lifeless forgettable muddled "
    "pretentious annoying irritating painful ridiculous absurd messy sloppy crude cheap hollow dumb offensive "
    "disappointing unfunny uninspired ordinary forced contrived lazy thin stiff confused confusing overlong worthless "
    "mediocre unbearable depressing tasteless vulgar soulless incoherent amateurish inept flawed "
    "laughable wooden repetitive sluggish unconvincing "
    "abysmal aimless angry annoyed appalling arrogant artificial ashamed atrocious awkward banal barren bewildering "
    "bleak bloated bloody blunt boorish bothersome brutal bumbling careless chaotic cheesy childish choppy chilly "
    "coarse complicated confounding corrupt cowardly cranky crass creaky crippled criminal cumbersome cursed cynical "
    "damaged damp dead deadly deceptive defective deficient deplorable derivative desperate despicable detached dingy "
    "disagreeable disastrous disgraceful dishonest disjointed dismal disposable distasteful distracting distressing "
    "disturbing doomed downbeat drab dubious dusty earthbound embarrassing evil excessive excruciating exhausted "
    "exhausting exploitative faded faint fake fatal fatuous faulty fearful feeble filthy flimsy foolish foul frail "
    "frantic frightful frozen frustrating fuzzy garbled garish generic ghastly glib glum gory greedy grim grating "
    "gross grotesque gruesome guilty hackneyed half-baked hateful heartless heavy heavy-handed hideous hokey horrid "
    "hostile humourless humorless hypocritical idiotic ignorant ill illogical improbable inadequate inane incompetent "
    "inconsistent incomprehensible inconsequential indifferent inferior insane insipid insufferable insulting "
    "interminable intolerable irrelevant irresponsible jaded jarring jealous juvenile laboured labored lacking "
    "lackluster laborious leaden limp listless lonely lost loud lousy lukewarm mad manipulative mawkish maudlin "
    "meagre mean meandering meaningless mindless misguided mistaken monotonous monstrous moronic muddy murky naive "
    "needless noxious numb numbing obnoxious obscure obvious odious off-putting oppressive outdated outrageous "
    "overblown overdone overwrought pale paltry pathetic patronizing perverse pitiful plodding plotless poisonous "
    "pompous ponderous preachy preposterous problematic prosaic puerile rambling rancid redundant repellent "
    "reprehensible repulsive rigid rotten routine ruthless sappy scattered schmaltzy selfish senseless sentimental "
    "shameful shapeless shoddy shrill sick sickening simplistic skimpy sleazy sophomoric sore sour spiteful spoiled "
    "stagnant static stilted strained stuffy sub-par sulky superficial surly suspicious tacky tense thankless "
    "thoughtless threadbare tiring toothless torpid tortured trashy trite trivial troubled turgid unappealing "
    "unattractive unbelievable unclear uneven unfair unfocused unfortunate unhappy unhealthy unimaginative "
    "uninteresting uninvolving unintentional unkind unlikable unlucky unnecessary unoriginal unremarkable "
    "unsatisfying unsuccessful unwatchable unwelcome unworthy useless vacant vain vague vacuous vicious vile violent "
    "washed-out wasted wasteful weary wicked witless woeful wordy worn worse worst wrong wrongheaded"
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
        "team;game;coach;player;season;league;cup;goal;match;score;champion;football;tennis;baseball;"
        "basketball;hockey;golf;cricket;rugby;boxing;soccer;race;club;victory;playoff;title;medal;olympic;"
        "olympics;stadium;quarterback;inning;touchdown;referee;striker;tournament;defeat;championship;"
        "manager;pitcher;home run;Yankees;sox;Athens;gold medal;final;semifinal;runner;sprint;swimmer;"
        "marathon;relay;racing;driver;grand prix;seed;rebound;forward;defender;midfielder;keeper;fan;roster;"
        "injury;wicket;batsman;bowler;fourth quarter;halftime;overtime;series;pennant;draft;trade deadline;"
        "wins;loses;beats;defeats;scored;record;opener;rookie;squad;kick;penalty;fixture;champions league;"
        "national team;world cup;NFL;NBA;playoffs;games;teams;players;coaches;goals;fans;points;innings;"
        "streak;comeback;upset;rival;Ryder"
    ).split(";"),
    "trade": (
        "market;stock;share;price;oil;bank;profit;company;investor;dollar;sales;earnings;quarter;shareholder;"
        "merger;billion;growth;rate;economy;airline;retailer;firm;deal;bid;cost;tax;inflation;currency;"
        "export;job;chief executive;stocks;shares;prices;profits;companies;investors;markets;oil prices;"
        "crude;barrel;stock exchange;interest rates;Federal Reserve;Euro;yen;bond;treasury;yield;loss;revenue;"
        "forecast;outlook;third-quarter;results;analyst;fund;hedge fund;insurance;insurer;pension;creditor;"
        "bankruptcy;takeover;acquisition;stake;buyout;offer;subsidiary;supplier;factory;manufacturer;"
        "carmaker;consumer spending;demand;retail;store;chain;jobs;layoffs;hiring;unemployment;payroll;"
        "budget;deficit;trade gap;exports;imports;tariff;OPEC;pipeline;energy;fuel;gas;mining;steel;"
        "brokerage;Nasdaq;index;rally;slump;plunge;debt;credit;mortgage;loan;lender;billionaire;financier;"
        "ceo;accounting;audit;settlement;regulator;antitrust;fine;cuts;cost-cutting;fares;carrier"
    ).split(";"),
    "science": (
        "computer;software;internet;web;phone;network;space;planet;scientist;research;technology;satellite;"
        "virus;search;user;device;chip;wireless;server;online;digital;robot;study;NASA;gene;browser;"
        "Microsoft;Windows;Linux;Google;Yahoo;Apple;iPod;Intel;IBM;Dell;Oracle;Cisco;Nokia;Sony;PlayStation;"
        "Xbox;Nintendo;computers;programs;download;e-mail;spam;worm;hacker;security;flaw;patch;update;"
        "upgrade;version;release;desktop;laptop;processor;microprocessor;disk;hardware;operating system;"
        "open source;code;developer;application;website;engine;portal;broadband;DSL;cable;modem;wi-fi;"
        "Bluetooth;mobile;handset;cell phone;camera;video game;console;music player;DVD;screen;display;"
        "telescope;astronomer;galaxy;comet;moon;Mars;Saturn;orbit;shuttle;spacecraft;probe;rocket;launch;"
        "astronaut;station;fossil;species;climate;experiment;laboratory;physics;DNA;cell;stem cells;brain;"
        "researchers;scientists;users;networks;messages;messaging;blog;encryption;piracy;copyright;patent"
    ).split(";"),
    "the state": (
        "president;minister;government;election;troops;police;attack;bomb;peace;leader;vote;parliament;"
        "capital;official;rebel;hostage;border;treaty;protest;prison;court;nuclear;refugee;province;"
        "ambassador;prime minister;foreign minister;secretary;senate;senator;congress;governor;mayor;"
        "candidate;campaign;ballot;poll;voter;Democrat;Republican;Iraq;Baghdad;Falluja;Najaf;Iran;Tehran;"
        "Afghanistan;Kabul;Israel;Gaza;Palestinian;Arafat;Sharon;Egypt;Syria;Sudan;Darfur;Russia;Putin;"
        "Moscow;Chechnya;Ukraine;Kiev;China;Beijing;Taiwan;Japan;Tokyo;Korea;Pyongyang;India;Pakistan;"
        "Kashmir;France;Britain;Blair;Germany;Turkey;Cuba;Haiti;militant;insurgent;gunman;kidnapper;"
        "terrorist;bomber;suicide;explosion;blast;killed;wounded;dead;soldiers;marines;army;forces;raid;"
        "strike;air strike;clashes;violence;ceasefire;truce;talks;summit;sanctions;United Nations;UN;"
        "diplomat;embassy;envoy;crisis;coup;regime;dictator;opposition;uprising;militia;cleric;mosque;pope;"
        "holocaust;hurricane;earthquake;flood;victims;death toll;aid;relief;human rights;ministers;leaders;"
        "officials;elections;attacks;killings;hostages;police officers;judge;trial;verdict;arrest;convict"
    ).split(";"),
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
